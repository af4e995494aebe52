"""Images from files: read patch by patch, and tables that say their classes."""
