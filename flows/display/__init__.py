"""What a run says: progress, tables and the answers of commands, on a terminal and on Prefect's pages."""
