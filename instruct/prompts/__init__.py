"""Text only: records, templates, options, exemplars, rendering."""
