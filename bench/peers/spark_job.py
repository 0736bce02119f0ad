"""The engine job in Spark Structured Streaming: files as micro-batches, state on the heap. Settings: README.md."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import pyspark
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from bench.peers.answer import CORES, Answer, Sums, directories, session_cpu_s

SCHEMA: Final = (
    "specversion STRING, id STRING, source STRING, type STRING, subject STRING, time TIMESTAMP, "
    "data STRUCT<input_tokens: BIGINT, model: STRING>"
)
VALID: Final = (
    "specversion = '1.0' AND type = 'llm.completion' AND id <> '' AND source <> '' AND subject <> '' "
    "AND time IS NOT NULL AND data.model IS NOT NULL AND data.input_tokens >= 0"
)
LATENESS: Final = "15 minutes"
ROCKSDB: Final = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
SETTINGS: Final = {
    "spark.sql.shuffle.partitions": str(CORES),
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}


def session(local_dir: Path) -> SparkSession:
    """Start Spark with two threads; its scratch files go to a directory, in memory when the runner chose it."""
    builder = SparkSession.builder.master(f"local[{CORES}]").config("spark.local.dir", str(local_dir))
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    if os.environ.get("SPARK_STATE") == "rocksdb":
        builder = builder.config("spark.sql.streaming.stateStore.providerClass", ROCKSDB)
    return builder.getOrCreate()


def facts(spark: SparkSession, directory: Path) -> DataFrame:
    """Define the job; return the stream of sums per tenant, model and minute."""
    events = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).json(str(directory))
    first_of_each = (
        events.withWatermark("time", LATENESS)
        .where(VALID)
        .selectExpr("subject", "source", "id", "time", "data.model AS model", "data.input_tokens AS tokens")
        .dropDuplicatesWithinWatermark(["subject", "source", "id"])
    )
    return first_of_each.groupBy(sql.window("time", "1 minute"), "subject", "model").agg(
        sql.count("*").alias("events"), sql.sum("tokens").alias("tokens")
    )


def run(spark: SparkSession, directory: Path) -> Answer:
    """Run the job over the files of a directory, the last of which closes all windows."""
    sums = [0, 0, 0]

    def take(batch: DataFrame, number: int) -> None:
        row: Any = batch.agg(sql.count("*"), sql.sum("events"), sql.sum("tokens")).collect()[0]
        for place in range(len(sums)):
            sums[place] += row[place] or 0

    with tempfile.TemporaryDirectory(dir=directory.parent) as checkpoints:
        began_s, began_cpu_s = time.perf_counter(), session_cpu_s()
        query = (
            facts(spark, directory)
            .writeStream.outputMode("append")
            .foreachBatch(take)
            .option("checkpointLocation", checkpoints)
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
        seconds, cpu_s = time.perf_counter() - began_s, session_cpu_s() - began_cpu_s
    return Answer(Sums(*sums), seconds, cpu_s, pyspark.__version__)


def main() -> None:
    """Run over the warm-up, then over the input."""
    warm_up, whole = directories()
    with tempfile.TemporaryDirectory(dir=whole.parent) as local_dir:
        spark = session(Path(local_dir))
        try:
            run(spark, warm_up)
            answer = run(spark, whole)
        finally:
            spark.stop()
    print(answer.line())


if __name__ == "__main__":
    main()
