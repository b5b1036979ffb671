-- The serving database. Applied once a version, in one transaction, by retrieval/store/postgres.py as the
-- administrator; running it again changes nothing.
--
-- An index is a *generation*: one embedding model, one chunker. Within it an *epoch* counts its changes. A row
-- is valid from one epoch to another, so a change never touches what a reader of an older epoch sees: a
-- release is the pair (generation, epoch), going live is moving one pointer, and so is going back.

-- Roles. The owner writes; the serving role owns nothing and may only read. ---------------------------------

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_owner') THEN
        CREATE ROLE headwater_owner NOLOGIN NOINHERIT;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_serving') THEN
        CREATE ROLE headwater_serving LOGIN NOINHERIT NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
    EXECUTE format('GRANT headwater_owner TO %I', current_user);
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO headwater_owner', current_database());
    EXECUTE format(
        'ALTER ROLE headwater_serving IN DATABASE %I SET default_transaction_read_only = on', current_database()
    );
    -- Samples of texts that version 1 kept.
    IF current_setting('is_superuser') = 'on' THEN
        DELETE FROM pg_statistic USING pg_class, pg_attribute
        WHERE starelid = pg_class.oid AND relnamespace = to_regnamespace('headwater')
            AND attrelid = starelid AND attnum = staattnum
            AND atttypid IN ('text'::regtype, 'integer[]'::regtype, 'bigint[]'::regtype);
    END IF;
    -- Open to everybody as PostgreSQL comes: ending the sessions of others of one's role, and storing objects.
    IF current_setting('is_superuser') = 'on' THEN
        REVOKE EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint), pg_cancel_backend(integer),
            lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint), pg_cancel_backend(integer)
            TO pg_signal_backend;
    END IF;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;

CREATE SCHEMA IF NOT EXISTS headwater AUTHORIZATION headwater_owner;
GRANT USAGE ON SCHEMA headwater TO headwater_serving;

SET LOCAL ROLE headwater_owner;

CREATE TABLE IF NOT EXISTS headwater.schema_version (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Version 1 had no groups: its rows' scope is their tenant.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = 'headwater'::regnamespace AND relname IN ('chunks', 'postings', 'statistics')
            AND attname = 'tenant'
    LOOP
        EXECUTE format('ALTER TABLE headwater.%I RENAME COLUMN tenant TO scope', name);
    END LOOP;
END
$$;

-- The planner's estimates are made from samples of all rows, whoever asks, and EXPLAIN shows them: no samples of
-- texts, names and postings are kept. What it assumes without them is the same for every value.
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

-- What the index is and which of it is live. -----------------------------------------------------------------

CREATE TABLE IF NOT EXISTS headwater.index_state (
    generation integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_digest text NOT NULL,
    chunker_digest text NOT NULL,
    index_version integer NOT NULL,
    dimension integer NOT NULL CHECK (dimension BETWEEN 1 AND 4000),
    -- Every writer compares and swaps it: one that was overtaken changes nothing.
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

CREATE TABLE IF NOT EXISTS headwater.live (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    release_id text REFERENCES headwater.releases
);
INSERT INTO headwater.live DEFAULT VALUES ON CONFLICT DO NOTHING;

-- What was live since when: going back makes an older release live again, so a release's own time does not say
-- it. Outlives the releases, so that a moment whose release is gone can be told from one before the first.
CREATE TABLE IF NOT EXISTS headwater.live_history (
    live_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    release_id text NOT NULL
);
INSERT INTO headwater.live_history (live_since, release_id)
SELECT past.* FROM (
    SELECT released_at, release_id FROM headwater.releases
    UNION ALL
    SELECT clock_timestamp(), release_id FROM headwater.live JOIN headwater.releases USING (release_id)
    WHERE released_at < (SELECT max(released_at) FROM headwater.releases)
) past
WHERE NOT EXISTS (SELECT FROM headwater.live_history);

-- Repoints in one statement, when the live release is still the one the caller judged against.
CREATE OR REPLACE FUNCTION headwater.swap_live(expected text, next text) RETURNS boolean
LANGUAGE sql
AS $$
    WITH swapped AS (
        UPDATE headwater.live SET release_id = next WHERE release_id IS NOT DISTINCT FROM expected RETURNING 1
    ), told AS (
        INSERT INTO headwater.live_history (release_id)
        SELECT next FROM swapped WHERE next IS DISTINCT FROM expected
    )
    SELECT EXISTS (SELECT FROM swapped)
$$;

-- Stored rows. A partition a generation: it is loaded beside the others, attached, and dropped whole. ---------

CREATE TABLE IF NOT EXISTS headwater.chunks (
    generation integer NOT NULL,
    -- A row's number within its generation: narrow in postings. What identifies a chunk is its chunk_id.
    chunk_no bigint NOT NULL,
    valid_from bigint NOT NULL,
    valid_to bigint,
    char_start integer NOT NULL,
    char_end integer NOT NULL,
    ordinal integer NOT NULL,
    token_count integer NOT NULL,
    chunk_id text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,  -- who may read it: see Access
    doc_id text COLLATE "C" NOT NULL,
    uri text NOT NULL,
    title text,
    heading text,
    content_sha256 text NOT NULL,
    text text NOT NULL,
    text_sha256 text NOT NULL,
    language text COLLATE "C" NOT NULL,
    -- Beside the row where it fits: an exact scan reads every one, and fetching it from elsewhere costs tenfold.
    embedding public.halfvec STORAGE MAIN NOT NULL
) PARTITION BY LIST (generation);

-- Up to schema version 2 a posting was a row; they are put into blocks below.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = to_regclass('headwater.postings') AND attname = 'chunk_no'
    ) THEN
        ALTER TABLE headwater.postings RENAME TO posting_rows;
    END IF;
END
$$;

-- Which chunks hold a lexeme: a block of them a row, by ascending number; see retrieval/index/postings.py.
CREATE TABLE IF NOT EXISTS headwater.postings (
    generation integer NOT NULL,
    first_no bigint NOT NULL,
    scope text COLLATE "C" NOT NULL,
    lexeme text COLLATE "C" NOT NULL,
    chunk_nos integer[] NOT NULL,
    -- Of each: the chunk's length in lexemes << 32 | in its headings << 24 | in its title << 16 | in its text.
    counts bigint[] NOT NULL
) PARTITION BY LIST (generation);

-- How many chunks hold a lexeme: a row where an epoch changed it, the newest at or before an epoch holds. What
-- a word weighs is known before its postings are read, so that those of a very common one need not be.
CREATE TABLE IF NOT EXISTS headwater.frequencies (
    generation integer NOT NULL,
    epoch bigint NOT NULL,
    chunk_count bigint NOT NULL CHECK (chunk_count >= 0),
    scope text COLLATE "C" NOT NULL,
    lexeme text COLLATE "C" NOT NULL
) PARTITION BY LIST (generation);

-- What BM25 needs beside the postings, a row where an epoch changed it: the newest at or before an epoch holds.
CREATE TABLE IF NOT EXISTS headwater.statistics (
    generation integer NOT NULL REFERENCES headwater.index_state ON DELETE CASCADE,
    scope text COLLATE "C" NOT NULL,
    language text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    chunk_count bigint NOT NULL CHECK (chunk_count >= 0),
    total_length bigint NOT NULL CHECK (total_length >= 0),
    PRIMARY KEY (generation, scope, language, epoch)
);

-- From older versions: a posting a row, in version 1 with one frequency for all fields and uncounted lexemes.
DROP FUNCTION IF EXISTS headwater.lexemes(text, text);
DO $$
DECLARE
    of_generation integer;
    name text;
BEGIN
    IF to_regclass('headwater.posting_rows') IS NULL THEN
        RETURN;
    END IF;
    IF EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = 'headwater.posting_rows'::regclass AND attname = 'tf'
    ) THEN
        ALTER TABLE headwater.posting_rows RENAME COLUMN tf TO text_tf;
        ALTER TABLE headwater.posting_rows
            ADD COLUMN title_tf smallint NOT NULL DEFAULT 0, ADD COLUMN heading_tf smallint NOT NULL DEFAULT 0;
    END IF;
    FOR of_generation IN SELECT generation FROM headwater.index_state WHERE status = 'ready' LOOP
        EXECUTE format('ALTER TABLE headwater.postings_g%1$s RENAME TO posting_rows_g%1$s', of_generation);
        EXECUTE format(
            'CREATE TABLE headwater.postings_g%1$s PARTITION OF headwater.postings FOR VALUES IN (%1$s)',
            of_generation
        );
        INSERT INTO headwater.postings (generation, first_no, scope, lexeme, chunk_nos, counts)
        SELECT of_generation, min(chunk_no), scope, lexeme, array_agg(chunk_no::integer ORDER BY chunk_no),
            array_agg(
                (length::bigint << 32) | (least(heading_tf, 255)::bigint << 24) | (least(title_tf, 255) << 16)
                    | least(text_tf, 65535) ORDER BY chunk_no
            )
        FROM (
            SELECT *, (row_number() OVER (PARTITION BY scope, lexeme ORDER BY chunk_no) - 1) / 120 AS block
            FROM headwater.posting_rows WHERE generation = of_generation
        ) numbered
        GROUP BY scope, lexeme, block;
        EXECUTE format('CREATE UNIQUE INDEX ON headwater.postings_g%s (scope, lexeme, first_no)', of_generation);
        IF to_regclass(format('headwater.frequencies_g%s', of_generation)) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE headwater.frequencies_g%1$s PARTITION OF headwater.frequencies FOR VALUES IN (%1$s)',
                of_generation
            );
            INSERT INTO headwater.frequencies (generation, epoch, chunk_count, scope, lexeme)
            SELECT of_generation, epoch, count(*) FILTER (
                WHERE valid_from <= epoch AND (valid_to IS NULL OR valid_to > epoch)
            ), scope, lexeme
            FROM headwater.posting_rows CROSS JOIN (
                SELECT epoch FROM headwater.releases WHERE generation = of_generation
                UNION SELECT epoch FROM headwater.index_state WHERE generation = of_generation
            ) AS kept (epoch)
            WHERE generation = of_generation
            GROUP BY epoch, scope, lexeme;
            EXECUTE format(
                'CREATE UNIQUE INDEX ON headwater.frequencies_g%s (scope, lexeme, epoch)', of_generation
            );
        END IF;
        FOREACH name IN ARRAY ARRAY['postings', 'frequencies'] LOOP
            EXECUTE format('ALTER TABLE headwater.%I ENABLE ROW LEVEL SECURITY', name || '_g' || of_generation);
            EXECUTE format('ALTER TABLE headwater.%I FORCE ROW LEVEL SECURITY', name || '_g' || of_generation);
            EXECUTE format('DROP POLICY IF EXISTS owner_writes ON headwater.%I', name || '_g' || of_generation);
            EXECUTE format(
                'CREATE POLICY owner_writes ON headwater.%I TO headwater_owner USING (true)',
                name || '_g' || of_generation
            );
        END LOOP;
    END LOOP;
    DROP TABLE headwater.posting_rows;
END
$$;

SELECT headwater.keep_no_statistics(of) FROM (
    VALUES ('headwater.statistics'::regclass) UNION ALL
    SELECT inhrelid FROM pg_inherits WHERE inhparent IN (
        'headwater.chunks'::regclass, 'headwater.postings'::regclass, 'headwater.frequencies'::regclass
    )
) AS tables (of);

-- Words. ----------------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS headwater.text_configs (
    language text COLLATE "C" PRIMARY KEY,  -- ISO 639-1
    config text NOT NULL
);
INSERT INTO headwater.text_configs (language, config)
SELECT language, cfgname
FROM (
    VALUES ('ar', 'arabic'), ('ca', 'catalan'), ('da', 'danish'), ('de', 'german'), ('el', 'greek'),
        ('en', 'english'), ('es', 'spanish'), ('et', 'estonian'), ('eu', 'basque'), ('fi', 'finnish'),
        ('fr', 'french'), ('ga', 'irish'), ('hi', 'hindi'), ('hu', 'hungarian'), ('hy', 'armenian'),
        ('id', 'indonesian'), ('it', 'italian'), ('lt', 'lithuanian'), ('nb', 'norwegian'), ('ne', 'nepali'),
        ('nl', 'dutch'), ('nn', 'norwegian'), ('no', 'norwegian'), ('pt', 'portuguese'), ('ro', 'romanian'),
        ('ru', 'russian'), ('sr', 'serbian'), ('sv', 'swedish'), ('ta', 'tamil'), ('tr', 'turkish'),
        ('yi', 'yiddish')
) AS stemmers (language, config)
JOIN pg_catalog.pg_ts_config ON cfgname = config AND cfgnamespace = 'pg_catalog'::regnamespace
ON CONFLICT DO NOTHING;

-- Scripts that are written without spaces between words, and Hangul, whose words carry their particles.
CREATE OR REPLACE FUNCTION headwater.unspaced() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f'
    || '\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]+';

-- The one place that turns text into lexemes, for what is indexed and for what is asked:
-- * words, stemmed by the language's configuration; ASCII punctuation always ends one, because PostgreSQL's
--   parser takes `and/or` for a file, `<int>` for markup and the 19 of `COVID-19` for a negative number;
-- * identifiers as they stand, beside their words: `delta-spark==4.4.0`, in it `delta-spark` and `4.4.0`,
--   `std::vector`, `a.b@example.com`, `c++`;
-- * pairs of characters of a script without spaces, and single ones; a question's only where they stand alone.
-- What a letter is goes by the database's collation, whatever that of the arguments: as in the parser.
CREATE OR REPLACE FUNCTION headwater.terms(in_language text, content text, asked boolean)
RETURNS TABLE (lexeme text, tf integer)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT words.lexeme, cardinality(words.positions)
    FROM unnest(to_tsvector(
        coalesce((SELECT config FROM headwater.text_configs WHERE language = in_language), 'simple')::regconfig,
        regexp_replace(
            translate(content, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32)),
            headwater.unspaced(), ' ', 'g'
        )
    )) words
    UNION ALL
    SELECT identifier, count(*)::integer
    FROM regexp_matches(
        lower(content COLLATE "default"),
        '[[:alnum:]]+(?:[-_.:/@=+#\\]{1,3}[[:alnum:]]+)+(?:\+\+|#)?|[[:alnum:]]+(?:\+\+|#)', 'g'
    ) AS found (match)
    CROSS JOIN LATERAL (
        SELECT match[1]
        UNION ALL
        SELECT part FROM regexp_split_to_table(match[1], '[:/@=\\]+') AS part
        WHERE match[1] ~ '[:/@=\\]' AND part ~ '[-_.+#]'
    ) AS identifiers (identifier)
    WHERE length(identifier) <= 100
    GROUP BY identifier
    UNION ALL
    SELECT substr(run[1], place, size), count(*)::integer
    FROM regexp_matches(content, headwater.unspaced(), 'g') AS runs (run)
    CROSS JOIN (VALUES (1), (2)) AS sizes (size)
    CROSS JOIN LATERAL generate_series(1, length(run[1]) - size + 1) AS places (place)
    WHERE NOT asked OR size = 2 OR length(run[1]) = 1
    GROUP BY 1
$$;

-- Access. ---------------------------------------------------------------------------------------------------

-- Who may read a row is one scalar, its scope: the tenant, and where not everybody of the tenant may, U+001F and
-- the groups that may, joined by commas. Those with groups are listed here, so that a reader's are looked up.
CREATE TABLE IF NOT EXISTS headwater.scopes (
    scope text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    groups text[] NOT NULL
);
CREATE INDEX IF NOT EXISTS scopes_of_tenant ON headwater.scopes (tenant);

-- What the application proves with that it is the application (RFC 2104): a secret of one SHA-256 block, and the
-- same with both of the pads. Nobody but the owner may read it.
CREATE TABLE IF NOT EXISTS headwater.access_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    secret bytea NOT NULL CHECK (length(secret) = 64),
    inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64)
);

-- What a proof holds for: this transaction of this session, and no other.
CREATE OR REPLACE FUNCTION headwater.this_transaction() RETURNS text
LANGUAGE sql STABLE
RETURN pg_backend_pid() || '.' || (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint;

-- The one place that says what the session may see: the scopes of the tenant and groups that `headwater.access`
-- claims, where its proof holds. Any SQL may set that variable, none without the key can make the proof. Unset or
-- unproven is an error, never "all" and never "none". Restricted, because a parallel worker has another pid.
CREATE OR REPLACE FUNCTION headwater.visible_scopes() RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    token CONSTANT text := coalesce(current_setting('headwater.access', true), '');
    claim CONSTANT text := substr(token, 65);
    proof text;
    of_tenant text;
    of_groups text[];
BEGIN
    IF token = '' THEN
        RAISE EXCEPTION 'no tenant is set for this transaction' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT encode(sha256(outer_pad || sha256(inner_pad || convert_to(
        headwater.this_transaction() || ' ' || claim, 'UTF8'
    ))), 'hex') INTO proof FROM headwater.access_key;
    -- Hashes are compared, so that the time it takes says nothing of the proof.
    IF sha256(convert_to(left(token, 64), 'UTF8')) IS DISTINCT FROM sha256(convert_to(proof, 'UTF8')) THEN
        RAISE EXCEPTION 'the tenant of this transaction is not proven' USING ERRCODE = 'insufficient_privilege';
    END IF;
    of_tenant := claim::jsonb ->> 'tenant';
    of_groups := ARRAY(SELECT jsonb_array_elements_text(claim::jsonb -> 'groups'));
    IF of_groups = '{}' THEN
        RETURN ARRAY[of_tenant];
    END IF;
    RETURN of_tenant || ARRAY(
        SELECT s.scope FROM headwater.scopes s WHERE s.tenant = of_tenant AND s.groups && of_groups
    );
END
$$;

-- Forced, so that a forgotten grant to the owner shows nothing either. Equality on text is leakproof, so the
-- planner may use an index on the scope; the scalar subselect is evaluated once a query, not once a row.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['chunks', 'postings', 'frequencies', 'statistics'] LOOP
        EXECUTE format('ALTER TABLE headwater.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE headwater.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('DROP POLICY IF EXISTS owner_writes ON headwater.%I', name);
        EXECUTE format('CREATE POLICY owner_writes ON headwater.%I TO headwater_owner USING (true)', name);
        EXECUTE format('DROP POLICY IF EXISTS tenant_reads ON headwater.%I', name);
        EXECUTE format(
            'CREATE POLICY tenant_reads ON headwater.%I FOR SELECT TO headwater_serving '
            'USING (scope = ANY ((SELECT headwater.visible_scopes())::text[]))',
            name
        );
    END LOOP;
END
$$;
DROP FUNCTION IF EXISTS headwater.current_tenant();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA headwater FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.visible_scopes(), headwater.this_transaction(), headwater.unspaced(),
    headwater.terms(text, text, boolean) TO headwater_serving;
GRANT SELECT ON headwater.chunks, headwater.postings, headwater.frequencies, headwater.statistics,
    headwater.text_configs TO headwater_serving;
-- Lineage and a release's details speak of every tenant: not for serving.
GRANT SELECT (generation, model_digest, chunker_digest, dimension, epoch, status) ON headwater.index_state
    TO headwater_serving;
GRANT SELECT (release_id, generation, epoch, released_at) ON headwater.releases TO headwater_serving;
GRANT SELECT ON headwater.live TO headwater_serving;
