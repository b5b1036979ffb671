"""Tenants and groups are kept apart by the database: random probes, and SQL that means harm."""

import itertools
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import pytest
from index_rows import DIMENSION, NO_LINEAGE, Chunk, batch, policy_reader, prove
from psycopg import Connection
from pydantic import SecretStr

from retrieval.access import SCOPE_SEPARATOR
from retrieval.index.index import Index
from retrieval.index.types import IndexState
from retrieval.search.searcher import Searcher
from retrieval.store.postgres import Postgres, PostgresConfig

TENANTS = [f"tenant {n}" for n in range(12)]
GROUPS = ("audit", "board", "clerks")
GROUP_SETS = (None, "audit", "board", "audit,board", "clerks")
WORDS = ["copper", "harbor", "merger", "river", "salary", "stone"]
PROBES_A_READER = 100
LARGE_TENANT = int(os.environ.get("HEADWATER_TEST_LARGE_TENANT", "5000"))


def everything() -> dict[str, Chunk]:
    rng = random.Random(3)
    rows = [
        Chunk(
            f"{tenant}/{groups}/{n}",
            f"{rng.choice(WORDS)} {rng.choice(WORDS)} secret of {tenant}",
            tenant,
            groups=groups,
        )
        for tenant, groups, n in itertools.product(TENANTS, GROUP_SETS, range(20))
    ]
    return {row.chunk_id: row for row in rows}


CHUNKS = everything()


def may_read(chunk: Chunk, tenant: str, groups: tuple[str, ...]) -> bool:
    """Written down from what is promised, and not from how it is done."""
    if chunk.tenant != tenant:
        return False
    return chunk.groups is None or any(group in chunk.groups.split(",") for group in groups)


@pytest.fixture(scope="module")
def state(postgres: Postgres) -> IndexState:
    return Index(postgres).build(
        "model of access", "chunker", DIMENSION, [batch(CHUNKS.values())], NO_LINEAGE
    )


def key_of(postgres: Postgres) -> bytes:
    with postgres.owner() as connection:
        row = connection.execute("SELECT secret FROM headwater.access_key").fetchone()
    assert row is not None
    return bytes(row[0])


@contextmanager
def session(postgres: Postgres) -> Iterator[Connection[Any]]:
    """A session of the serving role that no pool resets: what an attacker would like to have."""
    postgres._access_key()
    with psycopg.connect(postgres._conninfo("headwater_serving"), autocommit=True) as connection:
        yield connection


PROBES = {
    "by id": "SELECT chunk_id FROM headwater.chunks WHERE chunk_id = probe.id",
    "by word": "SELECT chunk_id FROM headwater.postings p CROSS JOIN unnest(p.chunk_nos) AS held (chunk_no) "
    "JOIN headwater.chunks USING (generation, chunk_no) WHERE lexeme = probe.word LIMIT 30",
    "by scope": "SELECT chunk_id FROM headwater.chunks WHERE scope = probe.scope LIMIT 30",
    "by text": "SELECT chunk_id FROM headwater.chunks WHERE text LIKE '%%' || probe.tenant || '%%' LIMIT 30",
    "by vector": "SELECT chunk_id FROM headwater.chunks ORDER BY embedding <=> probe.vector::halfvec LIMIT 5",
}


def test_ten_thousand_probes_return_no_foreign_row(
    postgres: Postgres, state: IndexState, record_property: Any
) -> None:
    rng = random.Random(11)
    every, probes, leaked, returned = list(CHUNKS.values()), 0, 0, 0
    users = [groups for size in range(len(GROUPS) + 1) for groups in itertools.combinations(GROUPS, size)]
    readers = list(itertools.product([*TENANTS, "nobody"], users))
    for tenant, groups in readers:
        targets = [rng.choice(every) for _ in range(PROBES_A_READER)]
        with policy_reader(postgres, tenant, groups) as connection:
            for which, (_, query) in enumerate(PROBES.items()):
                asked = targets[which :: len(PROBES)]
                probes += len(asked)
                rows = connection.execute(
                    "SELECT found.chunk_id FROM "
                    "unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[]) "
                    f"AS probe (id, word, scope, tenant, vector) CROSS JOIN LATERAL ({query}) found",
                    (
                        [row.chunk_id for row in asked],
                        [row.text.split()[0] for row in asked],
                        [SCOPE_SEPARATOR.join(filter(None, (row.tenant, row.groups))) for row in asked],
                        [row.tenant for row in asked],
                        [str(row.embedding().tolist()) for row in asked],
                    ),
                ).fetchall()
                returned += len(rows)
                leaked += sum(not may_read(CHUNKS[row[0]], tenant, groups) for row in rows)
            seen = {row[0] for row in connection.execute("SELECT chunk_id FROM headwater.chunks")}
            counts = connection.execute(
                "SELECT (SELECT sum(chunk_count) FROM headwater.statistics), "
                "(SELECT sum(chunk_count) FROM headwater.frequencies WHERE lexeme = 'secret')"
            ).fetchone()
        expected = {name for name, row in CHUNKS.items() if may_read(row, tenant, groups)}
        assert seen == expected
        assert counts == (len(expected) or None, len(expected) or None)
    record_property("probes", probes)
    record_property("leaked", leaked)
    print(f"{probes} probes by {len(readers)} readers, {returned} rows returned, {leaked} foreign")
    assert probes >= 10_000
    assert returned > probes
    assert leaked == 0


def test_a_search_finds_what_its_user_may_read_and_scores_it_by_that_alone(
    postgres: Postgres, state: IndexState
) -> None:
    searcher = Searcher(postgres)
    vector = [1.0] * DIMENSION

    def search(tenant: str, groups: tuple[str, ...], mode: Any) -> dict[str, float]:
        hits = searcher.search(
            tenant,
            "merger salary secret",
            vector,
            1000,
            mode,
            state,
            model_digest="model of access",
            groups=groups,
        )
        return {hit.chunk_id: hit.score for hit in hits}

    for mode in ("hybrid", "lexical", "vector"):
        for groups in ((), ("board",), GROUPS):
            expected = {name for name, row in CHUNKS.items() if may_read(row, TENANTS[0], groups)}
            assert set(search(TENANTS[0], groups, mode)) == expected
    # A score counts words; those of texts that one may not see must not be counted.
    public = [row for row in CHUNKS.values() if row.tenant == TENANTS[0] and row.groups is None]
    alone = Index(postgres).build("alone", "chunker", DIMENSION, [batch(public)], NO_LINEAGE)
    hits = searcher.search(TENANTS[0], "merger salary secret", None, 1000, "lexical", alone)
    assert search(TENANTS[0], (), "lexical") == {hit.chunk_id: hit.score for hit in hits}


@pytest.mark.parametrize("tenant", ["", "a\0b", f"{TENANTS[0]}{SCOPE_SEPARATOR}board", "a\nb"])
def test_names_that_could_be_taken_for_another_scope_are_refused(postgres: Postgres, tenant: str) -> None:
    with pytest.raises(ValueError, match="no tenant"), postgres.serving(tenant):
        pass
    for group in ("", "a,b", f"a{SCOPE_SEPARATOR}b"):
        with pytest.raises(ValueError, match="can not name a group"), postgres.serving("x", [group]):
            pass


def test_a_proof_holds_for_its_own_transaction_tenant_and_groups(
    postgres: Postgres, state: IndexState
) -> None:
    key, victim = key_of(postgres), TENANTS[1]
    count = f"SELECT sum(chunk_count) FROM headwater_search.read_snapshot({state.generation}, {state.epoch})"

    def refused(connection: Connection[Any], token: str) -> None:
        with connection.transaction(force_rollback=True):
            connection.execute("SELECT set_config('headwater.access', %s, true)", (token,))
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not proven"):
                connection.execute(count)

    with session(postgres) as mine, session(postgres) as theirs:
        with theirs.transaction():
            stolen = prove(theirs, key, victim)
            assert theirs.execute(count).fetchone() != (0,)
            with mine.transaction():
                own = prove(mine, key, TENANTS[0])
                everything_of_mine = mine.execute(count).fetchone()
                # Another session's, also while it is good there; mine with another claim; guesses.
                refused(mine, stolen)
                refused(mine, own[:64] + own[64:].replace(TENANTS[0], victim))
                refused(mine, own[:64] + json.dumps({"tenant": TENANTS[0], "groups": list(GROUPS)}))
                refused(mine, own[:64].upper() + own[64:])
                refused(mine, "0" * 64 + stolen[64:])
                refused(mine, stolen[64:])
                refused(mine, own + " ")
                refused(mine, "x")
                assert mine.execute(count).fetchone() == everything_of_mine
        # A proof that was kept for the session is worth nothing in its next transaction.
        with theirs.transaction():
            theirs.execute("SELECT set_config('headwater.access', %s, false)", (stolen,))
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not proven"):
                theirs.execute(count)


NOT_ALLOWED = [
    "SELECT secret FROM headwater.access_key",
    "SELECT inner_pad FROM headwater.access_key",
    "DO $$ BEGIN PERFORM FROM headwater.access_key; END $$",
    "SELECT * FROM headwater.scopes",
    "SELECT * FROM headwater.release_log",
    "SELECT count(*) FROM headwater.chunks WHERE text >= 'secret of a' AND text < 'secret of z'",
    "SELECT pg_advisory_lock(1214603620)",
    "SELECT pg_try_advisory_xact_lock(1214603621)",
    "SELECT * FROM pg_stat_activity",
    "SELECT pg_stat_get_xact_tuples_returned('headwater.chunks'::regclass)",
    "SELECT relname, reltuples FROM pg_class",
    "SELECT pg_relation_size('headwater.chunks'::regclass)",
    "DO $$ BEGIN SET ROLE headwater_owner; END $$",
    "SET SESSION AUTHORIZATION headwater_owner",
    "SELECT set_config('role', 'headwater_owner', false)",
    "SELECT set_config('session_replication_role', 'replica', false)",
    "CREATE FUNCTION headwater.current_setting(text, boolean) RETURNS text LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean COST 0.001 LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = textne)",
    "ALTER FUNCTION headwater.visible_scopes() SECURITY INVOKER",
    "ALTER ROLE headwater_serving BYPASSRLS",
    "GRANT headwater_owner TO headwater_serving",
    "SELECT * FROM pg_statistic",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT lo_create(0)",
    "SELECT pg_read_file('postgresql.conf')",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "COPY headwater.access_key TO STDOUT",
    "LOCK TABLE headwater.chunks IN ACCESS EXCLUSIVE MODE",
]


@pytest.mark.parametrize("statement", NOT_ALLOWED)
def test_hostile_sql_is_refused(postgres: Postgres, state: IndexState, statement: str) -> None:
    key = key_of(postgres)
    with session(postgres) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("BEGIN")
        prove(connection, key, TENANTS[0], GROUPS)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


HARMLESS = [
    "RESET ALL",
    "SET row_security = off",
    "SET search_path = pg_temp, public",
    "SET SESSION headwater.tenant = 'tenant 1'",
    "SELECT set_config('headwater.access', '', true)",
    "SET ROLE NONE",
    "RESET ROLE",
    "RESET SESSION AUTHORIZATION",
    "SET enable_indexscan = off",
    "SET plan_cache_mode = force_generic_plan",
    "DO $$ BEGIN PERFORM set_config('headwater.access', '{\"tenant\": \"tenant 1\"}', true); END $$",
]


@pytest.mark.parametrize("statement", HARMLESS)
def test_sql_that_is_allowed_shows_nothing_more(
    postgres: Postgres, state: IndexState, statement: str
) -> None:
    """What follows it is an error, or sees one's own rows."""
    key = key_of(postgres)
    with session(postgres) as connection, connection.transaction(force_rollback=True):
        prove(connection, key, TENANTS[0])
        connection.execute(statement)
        try:
            rows = connection.execute(
                "SELECT chunk_id "
                "FROM headwater_search.nearest_by_comparison(%s, %s, NULL, %s::public.halfvec, 10000)",
                (state.generation, state.epoch, str([1.0] * DIMENSION)),
            ).fetchall()
        except psycopg.errors.InsufficientPrivilege:
            return
        assert {row[0] for row in rows} == {
            name for name, row in CHUNKS.items() if may_read(row, TENANTS[0], ())
        }


@pytest.mark.parametrize(
    "condition",
    [
        "1 / (CASE WHEN text LIKE '%of tenant 1' THEN 0 ELSE 1 END) = 1",
        "text::integer = 1",
        "text::regclass IS NOT NULL",
        "convert_from(text::bytea, 'UTF8')::xml IS DOCUMENT",
    ],
)
def test_conditions_are_asked_of_rows_that_may_be_seen_and_of_no_others(
    postgres: Postgres, state: IndexState, condition: str
) -> None:
    with policy_reader(postgres, "nobody") as connection:
        assert connection.execute(f"SELECT count(*) FROM headwater.chunks WHERE {condition}").fetchone() == (
            0,
        )
    said = ""
    with policy_reader(postgres, TENANTS[0]) as connection:
        try:
            connection.execute(f"SELECT count(*) FROM headwater.chunks WHERE {condition}")
        except psycopg.Error as error:
            said = str(error)
    assert "division by zero" not in said
    assert "secret of" not in said or f"secret of {TENANTS[0]}" in said


def estimates(plan: Any) -> list[tuple[str, float]]:
    found = [(plan["Node Type"], plan["Plan Rows"])]
    return found + [each for child in plan.get("Plans", []) for each in estimates(child)]


@pytest.mark.parametrize(
    ("table", "column", "there"),
    [
        ("chunks", "scope", TENANTS[1]),
        ("chunks", "uri", f"file:///{TENANTS[1]}/None/0"),
        ("chunks", "text", next(iter(CHUNKS.values())).text),
        ("chunks", "doc_id", "f"),
        ("chunks", "language", "en"),
        ("postings", "scope", TENANTS[1]),
        ("postings", "lexeme", "secret"),
        ("frequencies", "scope", TENANTS[1]),
        ("frequencies", "lexeme", "secret"),
        ("statistics", "scope", TENANTS[1]),
        ("statistics", "language", "en"),
    ],
)
@pytest.mark.parametrize("operator", ["=", "<", "<>"])
def test_the_planners_estimates_are_the_same_for_what_is_there_and_what_is_not(
    postgres: Postgres, state: IndexState, table: str, column: str, there: str, operator: str
) -> None:
    explain = f"EXPLAIN (FORMAT JSON) SELECT 1 FROM headwater.{table} WHERE {column} {operator} %s"
    with policy_reader(postgres, "nobody") as connection:
        plans = [connection.execute(explain, (value,)).fetchone() for value in (there, "there is none")]
    (one,), (other,) = plans  # type: ignore[misc]
    assert estimates(one[0]["Plan"]) == estimates(other[0]["Plan"])


def test_what_the_planner_knows_can_not_be_read(postgres: Postgres, state: IndexState) -> None:
    with postgres.serving(TENANTS[0]) as connection:
        assert (
            connection.execute(
                "SELECT tablename, attname, most_common_vals FROM pg_stats WHERE schemaname = 'headwater' "
                "AND (tablename ~ '^(chunks|postings|frequencies|statistics|scopes|access_key)') "
            ).fetchall()
            == []
        )


def test_a_plan_made_for_one_tenant_shows_the_next_its_own_rows(
    postgres: Postgres, state: IndexState
) -> None:
    key = key_of(postgres)
    with session(postgres) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute(
            "PREPARE seen AS SELECT chunk_id FROM headwater_search.nearest_by_comparison"
            f"({state.generation}, {state.epoch}, NULL, '{[1.0] * DIMENSION}'::public.halfvec, 10000)"
        )
        for tenant, groups in [(TENANTS[0], ()), (TENANTS[1], ("board",)), (TENANTS[0], ("audit",))]:
            with connection.transaction():
                prove(connection, key, tenant, groups)
                rows = connection.execute("EXECUTE seen").fetchall()
            assert {row[0] for row in rows} == {
                name for name, row in CHUNKS.items() if may_read(row, tenant, groups)
            }
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is set"):
            connection.execute("EXECUTE seen")


def test_nothing_that_a_transaction_leaves_behind_reaches_the_next(
    postgres: Postgres, state: IndexState
) -> None:
    assert postgres.server
    narrow = Postgres(postgres.server.place.parent, PostgresConfig(pool_size=1, pool_timeout_s=5))
    try:
        with narrow.serving(TENANTS[0]) as connection:
            pid = connection.info.backend_pid
            for statement in (
                "SET SESSION search_path = pg_temp",
                "SET SESSION statement_timeout = 0",
                "SET SESSION headwater.note = 'mine'",
                "PREPARE mine AS SELECT 1",
                "DECLARE mine CURSOR WITH HOLD FOR "
                f"SELECT * FROM headwater_search.read_snapshot({state.generation}, {state.epoch})",
            ):
                connection.execute(statement)
        with narrow.serving(TENANTS[1]) as connection:
            assert connection.info.backend_pid == pid
            left = connection.execute(
                "SELECT current_setting('search_path'), current_setting('statement_timeout'), "
                "current_setting('headwater.note', true), (SELECT count(*) FROM pg_prepared_statements), "
                "(SELECT count(*) FROM pg_cursors WHERE name = 'mine')"
            ).fetchone()
        assert left is not None
        assert left[:2] == ("headwater, public", "30s") or left[:2] == ("headwater,public", "30s")
        assert not left[2]
        assert left[3:] == (0, 0)
    finally:
        narrow.close()


def test_both_checks_are_leakproof_and_one_index_condition(postgres: Postgres, state: IndexState) -> None:
    with policy_reader(postgres, TENANTS[0], GROUPS) as connection:
        connection.execute("SET LOCAL enable_seqscan = off")  # the table is tiny: a scan of it is as cheap
        plans = {
            name: "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}", arguments))
            for name, query, arguments in [
                (
                    "word",
                    f"SELECT lexeme, chunk_nos FROM headwater.postings WHERE generation = {state.generation} "
                    "AND lexeme = ANY(%s)",
                    (["merger", "salary"],),
                ),
                ("all", f"SELECT text FROM headwater.chunks WHERE generation = {state.generation}", ()),
                (
                    "leaky",
                    f"SELECT text FROM headwater.chunks WHERE generation = {state.generation} AND text ~ 'x'",
                    (),
                ),
            ]
        }
    for plan in plans.values():
        condition = next(line for line in plan.splitlines() if "Index Cond" in line)
        assert "scope = ANY ((InitPlan 1).col1)" in condition
        assert plan.count("  InitPlan") == 1  # what one may see is looked up once, not once a row
    assert "lexeme = ANY" in next(line for line in plans["word"].splitlines() if "Index Cond" in line)


def test_a_process_that_only_serves_needs_the_key_and_no_administrator(
    postgres: Postgres, state: IndexState, tmp_path: Any
) -> None:
    url = postgres._conninfo("headwater_serving")
    right = key_of(postgres).hex()
    for secret, proven in ((right, True), ("0" * 128, False)):
        only_serves = Postgres(
            tmp_path, PostgresConfig(serving_url=SecretStr(url), access_key=SecretStr(secret))
        )
        try:
            search = Searcher(only_serves).search
            if proven:
                assert search(TENANTS[0], "merger", None, 5, "lexical", state)
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not proven"):
                    search(TENANTS[0], "merger", None, 5, "lexical", state)
        finally:
            only_serves.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="128 hex digits"):
        PostgresConfig(access_key=SecretStr("secret"))


def test_a_small_tenant_beside_a_large_one_finds_its_true_neighbours(postgres: Postgres) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(LARGE_TENANT + 100, DIMENSION)).astype(np.float32)
    rows = [
        Chunk(f"{n}", "text", "small" if n < 100 else "large", vector=tuple(vector))
        for n, vector in enumerate(vectors.tolist())
    ]
    state = Index(postgres).build("large and small", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    mine = vectors[:100] / np.linalg.norm(vectors[:100], axis=1, keepdims=True)
    searcher, recalls = Searcher(postgres), []
    for query in rng.normal(size=(50, DIMENSION)).astype(np.float32):
        hits = searcher.search("small", "", query, 10, "vector", state, model_digest="large and small")
        true = {rows[n].chunk_id for n in np.argsort(-(mine @ query), kind="stable")[:10]}
        recalls.append(len(true & {hit.chunk_id for hit in hits}) / 10)
    # Half floats may swap two that are as near as each other at the end of the list.
    assert np.mean(recalls) >= 0.99
