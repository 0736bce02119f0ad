"""Peers of the engine job: the same job in Spark, Flink SQL and Pathway, each in an environment of its own."""
