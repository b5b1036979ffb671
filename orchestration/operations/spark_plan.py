"""Allows only queries on Spark: checks a statement's query plan against lists of what is allowed.

Spark executes commands while it makes a data frame of them, reads files that a query names as tables, and has
functions that call any Java method. So its own parser says what a statement is; its own analysis, which
executes no command, says what it means; and the plan that was checked is the one that is executed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from py4j.java_gateway import is_instance_of  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_QUERY_NODES = frozenset(
    """
    Aggregate AsOfJoin CTERelationDef CTERelationRef Deduplicate Distinct Except Expand Filter Generate
    GlobalLimit Intersect Join LateralJoin LocalLimit LocalRelation Offset OneRowRelation Pivot Project Range
    Repartition RepartitionByExpression ResolvedHint ResolvedInlineTable Sample Sort SubqueryAlias Tail Union
    UnionLoop UnionLoopRef Unpivot UnresolvedHaving UnresolvedHint UnresolvedInlineTable
    UnresolvedSubqueryColumnAliases UnresolvedTVFAliases UnresolvedTableValuedFunction UnresolvedWith Window
    WithCTE WithWindowDefinition
    """.split()  # noqa: SIM905 - twenty lines instead of eighty
)
"""Nodes that make rows of rows."""

_SHOWING_NODES = frozenset(
    """
    CurrentNamespace DescribeQueryCommand DescribeRelation DescribeTableCommand ExplainCommand
    ResolvedNamespace ResolvedTempView ShowColumns ShowColumnsCommand ShowTables ShowTablesCommand
    """.split()  # noqa: SIM905 - twenty lines instead of eighty
)
"""Commands that change nothing, and what they name."""

_NAMED_NODES = frozenset({"UnresolvedRelation", "UnresolvedTableOrView"})
"""Nodes that name a table: views of the lake's tables, and names from WITH, have one part."""

_EXPRESSION_PACKAGE = "org.apache.spark.sql.catalyst.expressions."
_SUBQUERY = _EXPRESSION_PACKAGE + "PlanExpression"
_REFUSED_EXPRESSIONS = frozenset(
    {"CallMethodViaReflection", "PythonUDAF", "PythonUDF", "PythonUDTF", "ScalaUDF"}
)
_UNRESOLVED_EXPRESSIONS = frozenset(
    """
    MultiAlias ResolvedStar UnresolvedAlias UnresolvedAttribute UnresolvedExtractValue UnresolvedFunction
    UnresolvedGenerator UnresolvedOrdinal UnresolvedRegex UnresolvedStar UnresolvedStarExceptOrReplace
    """.split()  # noqa: SIM905 - twenty lines instead of eighty
)
"""Expressions of the package `analysis`; one there finds a function by a name that is worked out."""

_FUNCTION_GROUPS = frozenset(
    """
    agg_funcs array_funcs bitwise_funcs collection_funcs conditional_funcs conversion_funcs csv_funcs
    datetime_funcs generator_funcs hash_funcs json_funcs lambda_funcs map_funcs math_funcs predicate_funcs
    string_funcs struct_funcs url_funcs variant_funcs window_funcs
    """.split()  # noqa: SIM905 - twenty lines instead of eighty
)
_OTHER_FUNCTIONS = frozenset({"assert_true", "range", "raise_error", "typeof", "uuid", "version"})
"""These alone of the other groups, in which `reflect`, `java_method` and `table_changes` are."""


class SqlPlanRefused(ValueError):
    """A statement's Spark query plan does more than query the lake's tables, which is not allowed."""


def checked_sql_frame(spark: "SparkSession", statement: str) -> "DataFrame":
    """Returns the Spark frame of one query, checked and not yet executed.

    Args:
        spark: A session in which nothing is defined but views of the lake's tables.
        statement: One query, DESCRIBE, EXPLAIN, SHOW TABLES or SHOW COLUMNS.

    Raises:
        SqlPlanRefused: It is anything else.
    """
    from pyspark.sql import DataFrame

    # `${env:NAME}` in a statement would be the environment's NAME.
    spark.conf.set("spark.sql.variable.substitute", "false")
    check = _PlanCheck(spark)
    parsed = check.state.sqlParser().parsePlan(statement)
    check.check_plan(parsed)
    jvm: Any = spark._jvm
    skip = jvm.org.apache.spark.sql.execution.CommandExecutionMode.SKIP()
    check.check_plan(check.state.executePlan(parsed, skip).analyzed())
    return DataFrame(jvm.org.apache.spark.sql.classic.Dataset.ofRows(spark._jsparkSession, parsed), spark)


class _PlanCheck:
    """Walks plans of one session."""

    def __init__(self, spark: "SparkSession") -> None:
        self._jvm: Any = spark._jvm
        self._gateway: Any = spark.sparkContext._gateway
        self.state: Any = spark._jsparkSession.sessionState()

    def check_plan(self, plan: Any) -> None:
        waiting = [plan]
        while waiting:
            node = waiting.pop()
            kind = node.getClass().getSimpleName().rstrip("$")
            if kind == "View" and node.isTempView():
                continue  # one of the lake's tables: a query can define none
            if kind in _NAMED_NODES:
                if node.multipartIdentifier().size() != 1:
                    raise SqlPlanRefused(f"there is no table {node.multipartIdentifier().mkString('.')}")
                continue
            if kind not in _QUERY_NODES and kind not in _SHOWING_NODES:
                raise SqlPlanRefused(f"{kind} was refused")
            if kind == "UnresolvedTableValuedFunction":
                self._check_function(node.name(), self.state.tableFunctionRegistry())
            if kind == "ExplainCommand":
                waiting.append(node.logicalPlan())
            elif kind == "DescribeQueryCommand":
                waiting.append(node.plan())
            waiting += _items(node.children())
            if kind == "UnresolvedWith":
                waiting += _items(node.innerChildren())
            for expression in _items(node.expressions()):
                waiting += self._check_expression(expression)

    def _check_expression(self, expression: Any) -> list[Any]:
        """Checks an expression and those within it; returns the plans of its subqueries."""
        plans, waiting = [], [expression]
        while waiting:
            each = waiting.pop()
            name = each.getClass().getName()
            kind = name.rstrip("$").rpartition(".")[2].rpartition("$")[2]
            known = kind in _UNRESOLVED_EXPRESSIONS or name.startswith(_EXPRESSION_PACKAGE)
            if not known or kind in _REFUSED_EXPRESSIONS:
                raise SqlPlanRefused(f"{kind} was refused")
            if kind == "UnresolvedFunction":
                self._check_function(each.nameParts(), self.state.functionRegistry())
            elif kind == "UnresolvedGenerator":
                self._check_name(each.name().unquotedString(), self.state.functionRegistry())
            if is_instance_of(self._gateway, each, _SUBQUERY):
                plans.append(each.plan())
            waiting += _items(each.children())
        return plans

    def _check_function(self, parts: Any, registry: Any) -> None:
        self._check_name(parts.mkString("."), registry)

    def _check_name(self, name: str, registry: Any) -> None:
        found = registry.lookupFunction(self._jvm.org.apache.spark.sql.catalyst.FunctionIdentifier(name))
        if found.isEmpty():
            raise SqlPlanRefused(f"there is no function {name}")
        if found.get().getGroup() not in _FUNCTION_GROUPS and name.lower() not in _OTHER_FUNCTIONS:
            raise SqlPlanRefused(f"the function {name} was refused")


def _items(sequence: Any) -> Iterator[Any]:
    """Yields the members of a Scala sequence."""
    items = sequence.iterator()
    while items.hasNext():
        yield items.next()
