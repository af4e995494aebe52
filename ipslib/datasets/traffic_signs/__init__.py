"""Swedish traffic signs: annotations, photographs and the task made of them, and drawn ones."""
