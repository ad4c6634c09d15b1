"""Doing a flow's work: runners, clusters and queues, calls of tasks, the stages of a clip in order."""
