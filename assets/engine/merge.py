"""Makes a table's rows equal to those of a relation, within a scope, in one commit."""

from assets.engine.relations import IS_DELETED, Relations, StepOutput

_RUN_ID = "OpenLineage_RunId"


def merge_rows(on: Relations, output: StepOutput, rows: str, scope: str | None = None) -> None:
    """Makes the output's rows within a scope equal to those of a relation, in one commit.

    A small relation is merged in this process, also if Spark has computed it.

    Args:
        output: The table to write.
        rows: The name of the relation with the rows that the scope must hold, in the table's columns (the
            run's id is added). Rows of the table that are in the scope and not in this relation are deleted.
        scope: The name of a relation with one or more columns of the table; the rows of the table with its
            values are in the scope. None for all rows.

    Raises:
        WriteConflict: Another run has written to the table meanwhile; nothing was written.
    """
    table, lineage = output.table, output.lineage
    columns = ", ".join("{run_id} AS " + c if c == _RUN_ID else c for c in table.schema.names)
    on.define("merged", f"SELECT {columns} FROM {{{rows}}}", reused=True, run_id=lineage.run_id)
    on = on.fetched("merged", *([scope] if scope else []))
    if output.version == 0:
        on.append_to(output, "merged")
        return
    on.add_stored("target", output.lake, table.name, output.version)
    keys = ", ".join(table.key)
    # The keys first: most batches only add, and to look for differences reads every column of the table.
    on.define("known_keys", f"SELECT {keys} FROM {{merged}} SEMI JOIN {{target}} USING ({keys})", reused=True)
    on.define("lost_keys", _lost_keys(on, keys, scope), reused=True)
    if on.row("SELECT (SELECT count(*) FROM {known_keys}) + (SELECT count(*) FROM {lost_keys})") == (0,):
        on.append_to(output, "merged")
        return
    on.define("news", _news(output), reused=True)
    if on.row("SELECT count(*) FROM {news}") == (0,):
        # The inputs were consumed and nothing followed from them: a commit that moves the watermark.
        output.lake.append(table, table.schema.empty_table(), lineage, output.version)
        return
    on.merge_into(output, "news")


def _lost_keys(on: Relations, keys: str, scope: str | None) -> str:
    """Returns SQL for the keys of the table that are in the scope and not among the rows."""
    within = ""
    if scope is not None:
        within = f"SEMI JOIN {{{scope}}} AS scope USING ({', '.join(on.columns(scope))})"
    return f"""
        SELECT /*+ BROADCAST(scope) */ {keys} FROM {{target}} {within} ANTI JOIN {{merged}} USING ({keys})
    """


def _news(output: StepOutput) -> str:
    """Returns SQL for the rows that are new or say something else, and for those that go."""
    table = output.table
    # By name: a column that was added to an older table stands last in it.
    old, new = (", ".join(f"{side}.{c}" for c in table.schema.names) for side in ("t", "s"))
    keys = " AND ".join(f"t.{c} = s.{c}" for c in table.key)
    compared = [c for c in table.schema.names if c not in (*table.key, *table.volatile)]
    differs = " OR ".join(f"t.{c} IS DISTINCT FROM s.{c}" for c in compared)
    return f"""
        SELECT {new}, false AS {IS_DELETED} FROM {{merged}} AS s LEFT JOIN {{target}} AS t ON {keys}
        WHERE t.{table.key[0]} IS NULL OR {differs}
        UNION ALL
        SELECT {old}, true AS {IS_DELETED}
        FROM {{target}} AS t SEMI JOIN {{lost_keys}} USING ({", ".join(table.key)})
    """
