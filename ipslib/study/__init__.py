"""Executing the study: profiles, notebooks, where results lie, and the page that links them."""
