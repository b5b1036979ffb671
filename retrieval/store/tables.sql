-- What the index stores, and which of it is live.
--
-- An index is a *generation*: one embedding model and one chunker. Within it an *epoch* counts its changes. A row
-- is valid from one epoch to another, so a change never touches what a reader of an older epoch sees. A release
-- is a pair (generation, epoch); going live adds one row to the release log, and so does going back.

CREATE TABLE IF NOT EXISTS headwater.schema_version (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- The planner estimates from samples of all tenants' rows, and EXPLAIN shows its estimates to everybody: so no samples
-- of texts, names and postings are kept. Without samples the planner assumes the same for every value.
CREATE OR REPLACE FUNCTION headwater.keep_no_statistics(of regclass) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT attname FROM pg_attribute WHERE attrelid = of AND attnum > 0
            AND atttypid IN ('text'::regtype, 'integer[]'::regtype, 'bigint[]'::regtype)
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', of, name);
    END LOOP;
END
$$;

-- Generations, releases and what is live. ----------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS headwater.index_state (
    generation integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_digest text NOT NULL,
    chunker_digest text NOT NULL,
    index_version integer NOT NULL,
    dimension integer NOT NULL CHECK (dimension BETWEEN 1 AND 4000),
    -- Every writer compares and swaps it: a writer that was overtaken changes nothing.
    epoch bigint NOT NULL DEFAULT 1,
    next_chunk_no bigint NOT NULL DEFAULT 0,
    lineage jsonb NOT NULL,
    status text NOT NULL CHECK (status IN ('building', 'ready', 'retired')),
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS index_state_key ON headwater.index_state (model_digest, chunker_digest, generation);

CREATE TABLE IF NOT EXISTS headwater.releases (
    release_id text PRIMARY KEY,
    generation integer NOT NULL REFERENCES headwater.index_state,
    epoch bigint NOT NULL,
    released_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    details jsonb NOT NULL
);

-- The one truth about what is live. A row is a decision: a verdict, a move of what is live, or a hold. Rows are only
-- added, in the order of `move_id`, by writers that lock the table (retrieval/index/release_log.py).
CREATE TABLE IF NOT EXISTS headwater.release_log (
    move_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('index', 'engine', 'adapter', 'hold')),
    -- The name of an adapter's model; empty for what all tenants share.
    subject text COLLATE "C" NOT NULL,
    decision text NOT NULL,
    -- What was decided about. In a move, NULL means that nothing of this subject is live from now on.
    digest text,
    -- Whether the digest is live from now on. The newest such row of a kind and subject says what is live.
    moves boolean NOT NULL,
    -- In a move: the move to whose state a rollback returns.
    before bigint REFERENCES headwater.release_log,
    reason text NOT NULL,
    decided_by text NOT NULL,
    -- What was measured, and how what is live can be made again.
    record jsonb NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS release_log_moves ON headwater.release_log (kind, subject, move_id) WHERE moves;
CREATE INDEX IF NOT EXISTS release_log_verdicts ON headwater.release_log (kind, digest, move_id) WHERE NOT moves;

-- Versions before 9 had a pointer and a history of it.
DO $$
DECLARE
    entry record;
    back record;
    live_move bigint;
    live_digest text;
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = to_regclass('headwater.live')) IS DISTINCT FROM 'r' THEN
        RETURN;
    END IF;
    CREATE TABLE IF NOT EXISTS headwater.live_history (live_since timestamptz NOT NULL, release_id text NOT NULL);
    FOR entry IN SELECT live_since, release_id FROM headwater.live_history ORDER BY live_since LOOP
        CONTINUE WHEN entry.release_id = live_digest;
        WITH RECURSIVE way AS (
            SELECT move_id, digest, before FROM headwater.release_log WHERE move_id = live_move
            UNION ALL
            SELECT l.move_id, l.digest, l.before FROM way JOIN headwater.release_log l ON l.move_id = way.before
        )
        SELECT * INTO back FROM way WHERE digest = entry.release_id ORDER BY move_id DESC LIMIT 1;
        INSERT INTO headwater.release_log
            (kind, subject, decision, digest, moves, before, reason, decided_by, record, at)
        VALUES (
            'index', '', CASE WHEN back.move_id IS NULL THEN 'released' ELSE 'rolled_back' END, entry.release_id, true,
            CASE WHEN back.move_id IS NULL THEN live_move ELSE back.before END, '', '', '{}', entry.live_since
        ) RETURNING move_id, digest INTO live_move, live_digest;
    END LOOP;
    ALTER TABLE headwater.live ADD COLUMN IF NOT EXISTS held_by text, ADD COLUMN IF NOT EXISTS held_because text,
        ADD COLUMN IF NOT EXISTS held_since timestamptz;
    INSERT INTO headwater.release_log (kind, subject, decision, digest, moves, reason, decided_by, record, at)
        SELECT 'hold', '', 'held', held_by, true, coalesce(held_because, ''), held_by, '{}', held_since
        FROM headwater.live WHERE held_by IS NOT NULL;
    DROP FUNCTION IF EXISTS headwater.swap_live(text, text);
    DROP TABLE headwater.live CASCADE;
    DROP TABLE headwater.live_history;
END
$$;

-- The release that searches read. The reader sees it with the owner's rights, and nothing else of the log.
CREATE OR REPLACE VIEW headwater.live AS
    SELECT digest AS release_id FROM headwater.release_log
    WHERE kind = 'index' AND subject = '' AND moves ORDER BY move_id DESC LIMIT 1;

-- Stored rows. Each generation is a partition: loaded beside the others, attached, and dropped whole. -----------

CREATE TABLE IF NOT EXISTS headwater.chunks (
    generation integer NOT NULL,
    -- A row's number within its generation, which is short in postings. A chunk's identity is its chunk_id.
    chunk_no bigint NOT NULL,
    valid_from bigint NOT NULL,
    valid_to bigint,
    char_start integer NOT NULL,
    char_end integer NOT NULL,
    ordinal integer NOT NULL,
    token_count integer NOT NULL,
    chunk_id text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,  -- who may read it: see access.sql
    doc_id text COLLATE "C" NOT NULL,
    uri text NOT NULL,
    title text,
    heading text,
    content_sha256 text NOT NULL,
    text text NOT NULL,
    text_sha256 text NOT NULL,
    language text COLLATE "C" NOT NULL,
    -- In the row where it fits: an exact scan reads every vector, and one stored elsewhere costs tenfold.
    embedding public.halfvec STORAGE MAIN NOT NULL
) PARTITION BY LIST (generation);
-- The scope again, as the random number that stands for it in the conditions of indexes, which everybody can read. Null
-- in generations from before there were graphs of one scope.
ALTER TABLE headwater.chunks ADD COLUMN IF NOT EXISTS scope_key bigint;
-- Whether the document is fit for training, so that a search can leave the others out. Rows from before it was known
-- count as fit: the next change puts in anew those that are not, and leaves the rest.
ALTER TABLE headwater.chunks ADD COLUMN IF NOT EXISTS training_fit boolean NOT NULL DEFAULT true;

-- The HNSW graphs: one per scope that has many chunks. The chunks of other scopes are compared one by one.
CREATE TABLE IF NOT EXISTS headwater.graphs (
    generation integer NOT NULL REFERENCES headwater.index_state ON DELETE CASCADE,
    scope_key bigint NOT NULL,
    PRIMARY KEY (generation, scope_key)
);

-- Which chunks hold a lexeme: one row per block of them, by ascending number; see retrieval/index/postings.py.
CREATE TABLE IF NOT EXISTS headwater.postings (
    generation integer NOT NULL,
    first_no bigint NOT NULL,
    scope text COLLATE "C" NOT NULL,
    lexeme text COLLATE "C" NOT NULL,
    chunk_nos integer[] NOT NULL,
    -- For each chunk: its length in lexemes << 32, then how often its headings (<< 24), its title (<< 16) and its
    -- text hold this lexeme.
    counts bigint[] NOT NULL
) PARTITION BY LIST (generation);

-- How many chunks hold a lexeme: one row per epoch that changed it; the newest at or before an epoch holds. So a word's
-- weight is known before its postings are read, and those of a very common word need not be.
CREATE TABLE IF NOT EXISTS headwater.frequencies (
    generation integer NOT NULL,
    epoch bigint NOT NULL,
    chunk_count bigint NOT NULL CHECK (chunk_count >= 0),
    scope text COLLATE "C" NOT NULL,
    lexeme text COLLATE "C" NOT NULL
) PARTITION BY LIST (generation);

-- What BM25 needs beside the postings: one row per epoch that changed it; the newest at or before an epoch holds.
CREATE TABLE IF NOT EXISTS headwater.statistics (
    generation integer NOT NULL REFERENCES headwater.index_state ON DELETE CASCADE,
    scope text COLLATE "C" NOT NULL,
    language text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    chunk_count bigint NOT NULL CHECK (chunk_count >= 0),
    total_length bigint NOT NULL CHECK (total_length >= 0),
    PRIMARY KEY (generation, scope, language, epoch)
);

-- The chunks that a generation leaves out because they can't be indexed, each with what it failed and the reason.
CREATE TABLE IF NOT EXISTS headwater.quarantine (
    generation integer NOT NULL REFERENCES headwater.index_state ON DELETE CASCADE,
    chunk_id text COLLATE "C" NOT NULL,
    doc_id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    uri text NOT NULL,
    expectation text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (generation, chunk_id)
);

-- Statistics keep no samples of any table or partition that holds text.
SELECT headwater.keep_no_statistics(of) FROM (
    VALUES ('headwater.statistics'::regclass), ('headwater.quarantine'::regclass),
        ('headwater.release_log'::regclass) UNION ALL
    SELECT inhrelid FROM pg_inherits WHERE inhparent IN (
        'headwater.chunks'::regclass, 'headwater.postings'::regclass, 'headwater.frequencies'::regclass
    )
) AS tables (of);
