"""Execution of a flow's work: runners, clusters and queues, calls of tasks, a job's stages in order."""
