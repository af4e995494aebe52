"""Swedish traffic signs: annotations, photographs and the task made of them, and a stand-in."""
