"""Hostile SQL through a serving connection sees nothing of what another tenant's document says.

Two databases differ in one foreign document's content alone. Everything that a statement shows is compared:
rows, errors, notices, plans and counters.
"""

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch, prove
from psycopg import Connection

from retrieval.index.index import Index, IndexConfig
from retrieval.search.searcher import Searcher
from retrieval.store.postgres import Postgres, PostgresConfig
from retrieval.store.server_config import EmbeddedServerConfig

ME, VICTIM = "me", "victim"
SECRETS = ("copper merger on monday at the harbor", "walrus dinner on friday in the garden")
"""What the foreign document says in the one database and in the other."""
SECRET_VECTORS = ((1.0,) + (0.0,) * (DIMENSION - 1), (0.0,) * (DIMENSION - 1) + (1.0,))
SMALL = EmbeddedServerConfig(shared_buffers_mb=16)


@dataclass(frozen=True)
class World:
    """A database with its access key and the state of its index."""

    postgres: Postgres
    key: bytes
    generation: int
    victim_scope: int
    own_scope: int

    def filled(self, statement: str) -> str:
        """Returns a statement with the numbers of this database."""
        names = (("g", self.generation), ("victim", self.victim_scope), ("own", self.own_scope))
        for name, value in names:
            statement = statement.replace(f"<{name}>", str(value))
        return statement


def chunks(secret: int) -> list[Chunk]:
    rng = np.random.default_rng(4)
    rows = [
        Chunk(f"{tenant} {n}", f"plain words number {n}", tenant, vector=tuple(rng.normal(size=DIMENSION)))
        for tenant, n in itertools.product((ME, VICTIM), range(300))
    ]
    return [*rows, Chunk("secret", SECRETS[secret], VICTIM, vector=SECRET_VECTORS[secret])]


@pytest.fixture(scope="module")
def worlds() -> Iterator[tuple[World, World]]:
    made: list[World] = []
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as folder:
        for secret in (0, 1):
            # The numbers that stand for scopes are random: the same ones in both.
            drawn = itertools.count(1000)
            patched.setattr("retrieval.index.rows.randbits", lambda bits, drawn=drawn: next(drawn))
            postgres = Postgres(Path(folder) / str(secret), PostgresConfig(server=SMALL))
            index = Index(postgres, IndexConfig(graph_min_chunks=200))
            state = index.build("model", "chunker", DIMENSION, [batch(chunks(secret))], NO_LINEAGE)
            index.release("r1", state, None, NO_DETAILS)
            with postgres.owner() as connection:
                keys = dict(connection.execute("SELECT scope, scope_key FROM headwater.scopes").fetchall())
            made.append(World(postgres, postgres._access_key(), state.generation, keys[VICTIM], keys[ME]))
        try:
            yield made[0], made[1]
        finally:
            for world in made:
                world.postgres.remove()


VECTOR = f"'{list(SECRET_VECTORS[0])}'::public.halfvec"
WORDS = "ARRAY['copper','merger','monday','harbor','walrus','dinner','friday','garden']"
WEIGHTS = "ARRAY[1,1,1,1,1,1,1,1]::float8[]"
EVERY = "(SELECT array_agg(n) FROM generate_series(0, 700) AS n)"
RANKED = (
    "headwater_search.rank_by_words({g}, 1, {read}, {most}, {scanned}, {looked}, ARRAY[1,1,1]::float8[], "
)
RANKED += "ARRAY[0.5,0.1]::float8[], {phrase}, {phrases}, {without}, {lexemes}, {pool}, {depth}, {depth}, "
RANKED += "{also}::integer[], {vector})"
NOTHING, NO_WEIGHTS = "'{}'::text[]", "'{}'::float8[]"


def ranked(**given: str) -> str:
    usual = {
        "read": f"{WORDS}, {WEIGHTS}",
        "most": "NULL",
        "scanned": f"{NOTHING}, {NO_WEIGHTS}",
        "looked": f"{NOTHING}, {NO_WEIGHTS}",
        "phrase": "NULL",
        "phrases": NOTHING,
        "without": NOTHING,
        "lexemes": NOTHING,
        "pool": "400",
        "depth": "10",
        "also": "'{}'",
        "vector": VECTOR,
        "g": "<g>",
    }
    return "SELECT * FROM " + RANKED.format(**usual | given)


TABLES = ("chunks", "postings", "frequencies", "statistics", "scopes", "graphs", "quarantine", "access_key")
CONDITIONS = (
    "text >= 'copper' AND text < 'coppes'",
    "lexeme = 'walrus'",
    "scope = 'victim'",
    "language = 'en'",
    "true",
)
READS = [
    *(
        f"SELECT count(*) FROM headwater.{table} WHERE {condition}"
        for table in TABLES
        for condition in CONDITIONS
    ),
    *(f"SELECT * FROM headwater.{table}_g<g> LIMIT 1" for table in ("chunks", "postings", "frequencies")),
    *(
        f"TABLE headwater.{table}"
        for table in ("live", "releases", "index_state", "release_log", "text_configs")
    ),
    "COPY headwater.chunks TO STDOUT",
    "COPY (SELECT text FROM headwater.chunks) TO STDOUT",
    "LOCK TABLE headwater.chunks IN ACCESS SHARE MODE",
    "SELECT * FROM headwater.chunks FOR SHARE",
    "DECLARE c CURSOR FOR SELECT text FROM headwater.chunks",
    "PREPARE p AS SELECT text FROM headwater.chunks",
    "EXPLAIN SELECT * FROM headwater.chunks WHERE text = 'copper'",
    "DO $$ BEGIN PERFORM text FROM headwater.chunks; END $$",
    "SELECT headwater.visible_scopes()",
    "SELECT headwater.terms('en', 'copper', true)",
    "SELECT headwater_search.chunk_posting(<g>, 'victim', 'copper', 600)",
    "INSERT INTO headwater.release_log DEFAULT VALUES",
    "SELECT headwater.keep_no_statistics('headwater.chunks')",
]
CATALOGUES = [
    "SELECT * FROM pg_stats WHERE schemaname = 'headwater'",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_stats_ext",
    "SELECT relname, relpages, reltuples FROM pg_class WHERE relname ~ '_g[0-9]+'",
    "SELECT pg_get_expr(indpred, indrelid) AS e FROM pg_index WHERE indpred IS NOT NULL ORDER BY 1",
    "SELECT pg_get_expr(partbound, oid) FROM (SELECT NULL::pg_node_tree AS partbound, 0::oid AS oid) AS none",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'headwater' ORDER BY 1",
    "SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy ORDER BY 1, polrelid",
    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'headwater'::regnamespace ORDER BY 1",
    "SELECT * FROM information_schema.tables WHERE table_schema = 'headwater'",
    "SELECT * FROM information_schema.columns WHERE table_schema = 'headwater'",
    "SELECT * FROM pg_stat_user_tables",
    "SELECT * FROM pg_stat_user_indexes",
    "SELECT * FROM pg_statio_user_tables",
    "SELECT * FROM pg_stat_xact_user_tables",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_locks",
    "SELECT * FROM pg_prepared_xacts",
    "SELECT * FROM pg_largeobject",
    "SELECT * FROM pg_seclabels",
    "SELECT * FROM pg_settings WHERE name LIKE 'headwater%'",
    "SELECT * FROM pg_file_settings",
    "SELECT * FROM pg_backend_memory_contexts",
    "SELECT * FROM pg_shmem_allocations",
    "SELECT * FROM pg_stat_io",
    "SELECT * FROM pg_stat_wal",
    "SELECT * FROM pg_stat_database",
    "SELECT * FROM pg_stat_progress_vacuum",
    "SELECT * FROM pg_stat_bgwriter",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_ls_waldir()",
    "SELECT pg_read_binary_file('base')",
    "SELECT pg_stat_file('PG_VERSION')",
    "SELECT pg_current_logfile()",
    "SELECT pg_relation_filepath('headwater.chunks_g<g>'::regclass)",
    *(
        f"SELECT {function}('headwater.{table}_g<g>'::regclass)"
        for function in (
            "pg_relation_size",
            "pg_total_relation_size",
            "pg_indexes_size",
            "pg_stat_get_numscans",
            "pg_stat_get_tuples_returned",
            "pg_stat_get_xact_tuples_returned",
            "pg_stat_get_xact_tuples_fetched",
            "pg_stat_get_tuples_inserted",
            "pg_stat_get_live_tuples",
            "pg_stat_get_blocks_fetched",
        )
        for table in ("chunks", "postings", "frequencies")
    ),
]
CALLS = [
    "SELECT headwater_search.begin_reading() IS NOT NULL",
    "SELECT * FROM headwater_search.read_snapshot(NULL, NULL)",
    "SELECT * FROM headwater_search.read_snapshot(<g>, 1)",
    "SELECT * FROM headwater_search.read_snapshot(<g>, 0)",
    "SELECT * FROM headwater_search.read_snapshot(-1, NULL)",
    f"SELECT * FROM headwater_search.query_lexemes(<g>, 1, ARRAY['zz'], ARRAY[1], '{SECRETS[0]}', 100)",
    f"SELECT * FROM headwater_search.query_lexemes(<g>, 1, ARRAY['en'], ARRAY[-1], '{SECRETS[1]}', 100)",
    "SELECT * FROM headwater_search.query_lexemes(<g>, 1, NULL, NULL, 'copper', 100)",
    "SELECT * FROM headwater_search.query_lexemes(<g>, 1, ARRAY['en'], ARRAY[1], 'copper', -1)",
    "SELECT * FROM headwater_search.query_readings(ARRAY['en', '../../etc'], 'copper merger')",
    ranked(),
    ranked(most="5"),
    ranked(most="-1"),
    ranked(also=EVERY),
    ranked(also=EVERY, depth="10000", pool="2147483646"),
    ranked(scanned=f"{WORDS}, {WEIGHTS}", also=EVERY),
    ranked(looked=f"{WORDS}, {WEIGHTS}", also=EVERY),
    ranked(read="ARRAY['plain'], ARRAY[1]::float8[]", scanned=f"{WORDS}, {WEIGHTS}"),
    ranked(read="ARRAY['plain'], ARRAY[1]::float8[]", looked=f"{WORDS}, {WEIGHTS}", also=EVERY),
    ranked(phrase="'[[[\"copper\"]]]'"),
    ranked(phrase="'{\"a\": 1}'"),
    ranked(phrases="ARRAY['copper|walrus']"),
    ranked(phrases="ARRAY['(']"),
    ranked(read="ARRAY['plain'], ARRAY[1]::float8[]", without="ARRAY['^c']", lexemes=WORDS, depth="500"),
    ranked(depth="0"),
    ranked(vector=f"{VECTOR}, true"),
    ranked(depth="10001"),
    ranked(vector="NULL"),
    ranked(vector="'[1,2]'::public.halfvec"),
    ranked(g="NULL"),
    ranked(read="NULL, NULL"),
    f"SELECT * FROM headwater_search.matching_chunks(<g>, 1, {EVERY}, ARRAY['copper'], {NOTHING}, {NOTHING})",
    f"SELECT * FROM headwater_search.matching_chunks(<g>, 1, {EVERY}, {NOTHING}, ARRAY['copper'], {NOTHING})",
    f"SELECT * FROM headwater_search.matching_chunks(<g>, 1, {EVERY}, {NOTHING}, {NOTHING}, {WORDS})",
    f"SELECT * FROM headwater_search.matching_chunks(<g>, 1, {EVERY}, NULL, NULL, NULL)",
    f"SELECT * FROM headwater_search.read_chunks(<g>, 1, {EVERY}) ORDER BY chunk_no",
    "SELECT * FROM headwater_search.read_chunks(<g>, 1, ARRAY[600, 600, 600])",
    "SELECT * FROM headwater_search.read_chunks(NULL, NULL, NULL)",
    *(
        f"SELECT * FROM headwater_search.nearest_by_graph(<g>, 1, {scope}, {VECTOR}, {depth}, {ef}, {most}) "
        "ORDER BY similarity"
        for scope in ("<victim>", "<own>", "0", "NULL")
        # No two graphs over the same vectors are alike: of one's own so much is asked for that none matters.
        for depth, ef, most in ((1, 100, 1), (10, 200, 20000), (1000, 1000, 2147483647), (5, 4, 1))
    ),
    f"SELECT * FROM headwater_search.nearest_by_graph(<g>, 1, <victim>, {VECTOR}, 1, 1, 1)",
    f"SELECT * FROM headwater_search.nearest_by_graph(<g>, 1, <own>, {VECTOR}, 1, 1001, 1)",
    f"SELECT * FROM headwater_search.nearest_by_comparison(<g>, 1, NULL, {VECTOR}, 10)",
    f"SELECT * FROM headwater_search.nearest_by_comparison(<g>, 1, NULL, {VECTOR}, 10, true)",
    f"SELECT * FROM headwater_search.nearest_by_graph(<g>, 1, <victim>, {VECTOR}, 1, 1, 1, true)",
    f"SELECT * FROM headwater_search.nearest_by_comparison(<g>, 1, ARRAY[<victim>], {VECTOR}, 10)",
    f"SELECT * FROM headwater_search.nearest_by_comparison(<g>, 1, ARRAY[<own>, <victim>], {VECTOR}, 10000)",
    f"SELECT * FROM headwater_search.nearest_by_comparison(<g>, 1, NULL, {VECTOR}, -1)",
    "SELECT * FROM headwater_search.nearest_by_comparison(<g>, 1, NULL, NULL, 10)",
]
SETTINGS = [
    "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
    "SET enable_seqscan = off; SET enable_sort = off; SET enable_nestloop = off",
    "SET plan_cache_mode = force_generic_plan; SET enable_partition_pruning = off",
    "SET hnsw.ef_search = 1; SET hnsw.iterative_scan = off; SET hnsw.max_scan_tuples = 1",
    "SET client_min_messages = log; SET debug_print_plan = on; SET debug_print_rewritten = on",
    "SET work_mem = '64kB'; SET jit = on; SET jit_above_cost = 0; SET min_parallel_table_scan_size = 0",
    "SET row_security = off; SET search_path = pg_temp, public, headwater",
]
PLANS = "EXPLAIN (ANALYZE, VERBOSE, SETTINGS, WAL, BUFFERS OFF, TIMING OFF, SUMMARY OFF) "


def hostile_statements() -> list[tuple[str, str]]:
    """Returns pairs of settings and a statement."""
    plain = [("", statement) for statement in READS + CATALOGUES + CALLS]
    set_up = [(settings, statement) for settings in SETTINGS for statement in READS + CALLS]
    return plain + set_up + [("", PLANS + statement) for statement in CALLS]


def observed(
    connection: Connection[Any], world: World, settings: str, statement: str, proven: bool
) -> object:
    """Returns all that a statement shows in one transaction of the serving role."""
    notices: list[str] = []
    connection.add_notice_handler(lambda said: notices.append(f"{said.severity} {said.message_primary}"))
    query = world.filled(statement)
    shown: object
    try:
        with connection.transaction(force_rollback=True), connection.cursor() as cursor:
            if proven:
                prove(connection, world.key, ME)
            if settings:
                cursor.execute(settings)
            if query.startswith("COPY"):
                with cursor.copy(query) as rows:
                    shown = list(rows)
            else:
                cursor.execute(query)
                shown = (cursor.statusmessage, cursor.fetchall() if cursor.description else None)
    except psycopg.Error as error:
        said = error.diag
        shown = (said.sqlstate, said.message_primary, said.message_detail, said.message_hint, said.context)
    connection.execute("RESET ALL")
    return shown, notices


def differences(worlds: tuple[World, World], proven: bool, conninfo: str = "headwater_serving") -> list[str]:
    different = []
    connections = [psycopg.connect(world.postgres._conninfo(conninfo), autocommit=True) for world in worlds]
    try:
        for settings, statement in hostile_statements():
            one, other = (
                observed(connection, world, settings, statement, proven)
                for connection, world in zip(connections, worlds, strict=True)
            )
            if one != other:
                different.append(f"{settings} {statement}: {one} {other}")
    finally:
        for connection in connections:
            connection.close()
    return different


@pytest.mark.parametrize("proven", [True, False])
def test_no_statement_shows_anything_of_a_foreign_document(worlds: tuple[World, World], proven: bool) -> None:
    assert len(hostile_statements()) >= 200
    assert differences(worlds, proven) == []


COUNTERS = """
    SELECT relname, ARRAY[pg_stat_get_xact_numscans(oid), pg_stat_get_xact_tuples_returned(oid),
        pg_stat_get_xact_tuples_fetched(oid)]
    FROM pg_class WHERE relnamespace = 'headwater'::regnamespace ORDER BY relname
"""


def counted(world: World, statement: str) -> object:
    """Returns how often the functions scanned each table and index, and how many rows those gave."""
    with world.postgres.owner() as connection:
        before = dict(connection.execute(COUNTERS).fetchall())  # what earlier transactions have left
        connection.execute("SET LOCAL ROLE headwater_reader")
        prove(connection, world.key, ME)
        try:
            with connection.transaction():
                connection.execute(world.filled(statement))
        except psycopg.Error:
            return None
        connection.execute("SET LOCAL ROLE headwater_owner")
        after = dict(connection.execute(COUNTERS).fetchall())
    return {name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in after}


def test_the_counters_of_tables_and_indexes_are_the_same(worlds: tuple[World, World]) -> None:
    """A server that is not ours lets everybody read them."""
    compared = 0
    for statement in CALLS:
        if "nearest_by_graph" in statement:
            continue  # no two graphs over the same vectors are alike
        one, other = (counted(world, statement) for world in worlds)
        assert one == other, statement
        compared += one is not None
    assert compared >= 25


def test_the_statements_would_show_a_difference_to_one_who_may_see_it(worlds: tuple[World, World]) -> None:
    """The comparison above can fail: the owner of the tables sees the two databases differ."""
    assert len(differences(worlds, False, "headwater_owner")) >= 5


def test_a_search_of_ones_own_is_the_same_in_both(worlds: tuple[World, World]) -> None:
    hits = [
        Searcher(world.postgres).search(ME, "plain copper words", [0.5] * DIMENSION, 20, model_digest="model")
        for world in worlds
    ]
    assert hits[0] == hits[1]
    assert len(hits[0]) == 20


@pytest.mark.skipif("HEADWATER_TEST_TIMING" not in os.environ, reason="HEADWATER_TEST_TIMING=1 measures it")
def test_how_long_a_search_takes_says_little(worlds: tuple[World, World]) -> None:
    """Prints how much longer a search for a word takes where a foreign document holds it."""
    searcher = [Searcher(world.postgres) for world in worlds]
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(4000):
        at = turn % 2
        began = time.perf_counter()
        searcher[at].search(ME, "plain copper merger monday harbor", None, 10, "lexical")
        taken[at].append(1e6 * (time.perf_counter() - began))
    holds, holds_not = (statistics.median(each[200:]) for each in taken)
    rng = np.random.default_rng(0)
    drawn = [
        np.median(rng.choice(taken[0][200:], 1800)) - np.median(rng.choice(taken[1][200:], 1800))
        for _ in range(1000)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    more = holds - holds_not
    print(f"median {holds:.0f} and {holds_not:.0f} µs: {more:.1f} [{low:.1f}, {high:.1f}] more")
