"""Text that tasks share with test sets or with each other: an n-gram index and its scans."""
