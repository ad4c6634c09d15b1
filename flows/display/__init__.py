"""Progress, tables and answers of commands, on a terminal and on Prefect's pages."""
