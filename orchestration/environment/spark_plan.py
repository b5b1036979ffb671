"""Allows only queries on Spark: its guard checks a statement's plans before the statement is executed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_READ_ONLY = "25006"
"""The SQLSTATE of what the guard refuses."""


class SqlPlanRefused(ValueError):
    """A statement's Spark query plan does more than query the lake's tables, which is not allowed."""


def checked_sql_frame(spark: "SparkSession", statement: str) -> "DataFrame":
    """Returns the Spark frame of one query, checked and not yet executed.

    What is allowed is listed in `orchestration/environment/spark_guard.scala`, for JDBC too.

    Args:
        spark: A session in which nothing is defined but views of the lake's tables.
        statement: One query, DESCRIBE, EXPLAIN, SHOW TABLES or SHOW COLUMNS.

    Raises:
        SqlPlanRefused: It is anything else.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import DataFrame

    # `${env:NAME}` in a statement would be the environment's NAME.
    spark.conf.set("spark.sql.variable.substitute", "false")
    jvm: Any = spark._jvm
    session = spark._jsparkSession
    try:
        plan = jvm.org.apache.spark.sql.headwater.StatementCheck.checkedPlan(session, statement)
    except AnalysisException as error:
        if error.getSqlState() == _READ_ONLY:
            raise SqlPlanRefused(str(error)) from error
        raise
    return DataFrame(jvm.org.apache.spark.sql.classic.Dataset.ofRows(session, plan), spark)
