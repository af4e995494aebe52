"""What is said of runs: tables, statistics, figures, findings.

Notebooks import from here; a name's module is imported when the name is first asked for.
"""

from importlib import import_module

_NAMES = {
    "arm_figures": "arm_colours arm_dots attention_against_accuracy",
    "arms": "arm_table effect_in_words found_digits headline published_beside run_arms "
    "run_comparisons",
    "backbones": "cost_table obtain_weights",
    "efficiency": "at_side measure_sides",
    "figures": "CHANCE_LINE DIAMOND GREY INK OURS PUBLISHED chance_line "
    "chance_title draw_means grouped_bars learning_curves level_colours panel_grid row_legend "
    "task_panels task_title",
    "findings": "arm_finding Finding load_findings per_doubling published_row "
    "slope_finding AGREES DISAGREES OPEN",
    ".datasets.maps": "attention_figure bare BOX_COLOUR example_row image_row map_of_image",
    "published": "load_published published_accuracy published_curve published_signs REFERENCE "
    "SIGN_SETTING",
    "published_configs": "CATEGORIES published_runs",
    "remeasure": "evaluate_again trained_runs",
    "session": "Study",
    "slides": "draw_heat_map draw_slide find_material slide_overview",
    "statistics": "auc_interval correlation interaction_table rising_trend t_interval",
    "strokes": "noise_patterns stroke_table",
    "tables": "beside_published chance_level long_form points show summarise",
    "thresholds": "fit_thresholds threshold_table",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
