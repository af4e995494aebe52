"""What is said of runs: tables, statistics, figures, findings.

Notebooks import from here; a name's module is imported when the name is first asked for.
"""

from importlib import import_module

_NAMES = {
    "arms": "arm_table compare_arm headline published_beside run_arms run_comparisons",
    "efficiency": "at_side measure_runs measure_sides",
    "figures": "CHANCE_LINE DIAMOND GREY INK OURS PUBLISHED arm_colours chance_title draw_means "
    "level_colours log_ticks panel_grid row_legend task_panels",
    "findings": "CONTRADICTS NONE OPEN SUPPORTS VERDICTS Finding arm_finding findings_table "
    "load_findings published_row read_together slope_finding state",
    ".datasets.maps": "ATTENTION_COLOURS BOX_COLOUR attention_figure attention_values bare "
    "colour_bar example_row image_row map_of_image",
    "networks": "cost_table evaluate_again obtain_weights trained_runs",
    "plateau": "look_at_start watch",
    "published": "REFERENCE load_published published_accuracy published_curve",
    "published_configs": "CATEGORIES published_runs",
    "run_figures": "arm_dots attention_against_accuracy grouped_bars learning_curves",
    "session": "Study",
    "slides": "find_material heat_map",
    "statistics": "auc_interval correlation t_interval take_off_epoch",
    "strokes": "noise_patterns stroke_table",
    "tables": "beside_published chance_level change_along effects_over_seeds long_form "
    "paired_differences points show summarise",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
