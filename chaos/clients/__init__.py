"""What clients of a stack under faults do: submit in every way, read in every way, cancel, delete, retry."""
