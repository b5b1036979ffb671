-- The serving database. Applied once a version, in one transaction, by retrieval/postgres.py as the
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

-- Repoints in one statement, when the live release is still the one the caller judged against.
CREATE OR REPLACE FUNCTION headwater.swap_live(expected text, next text) RETURNS boolean
LANGUAGE sql
AS $$
    WITH swapped AS (
        UPDATE headwater.live SET release_id = next WHERE release_id IS NOT DISTINCT FROM expected RETURNING 1
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
    tenant text COLLATE "C" NOT NULL,
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

CREATE TABLE IF NOT EXISTS headwater.postings (
    generation integer NOT NULL,
    text_tf integer NOT NULL,
    chunk_no bigint NOT NULL,
    valid_from bigint NOT NULL,
    valid_to bigint,
    length integer NOT NULL,  -- of the whole chunk, in lexemes
    title_tf smallint NOT NULL,
    heading_tf smallint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    lexeme text COLLATE "C" NOT NULL
) PARTITION BY LIST (generation);

-- How many chunks hold a lexeme: a row where an epoch changed it, the newest at or before an epoch holds. What
-- a word weighs is known before its postings are read, so that those of a very common one need not be.
CREATE TABLE IF NOT EXISTS headwater.frequencies (
    generation integer NOT NULL,
    epoch bigint NOT NULL,
    chunk_count bigint NOT NULL CHECK (chunk_count >= 0),
    tenant text COLLATE "C" NOT NULL,
    lexeme text COLLATE "C" NOT NULL
) PARTITION BY LIST (generation);

-- What BM25 needs beside the postings, a row where an epoch changed it: the newest at or before an epoch holds.
CREATE TABLE IF NOT EXISTS headwater.statistics (
    generation integer NOT NULL REFERENCES headwater.index_state ON DELETE CASCADE,
    tenant text COLLATE "C" NOT NULL,
    language text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    chunk_count bigint NOT NULL CHECK (chunk_count >= 0),
    total_length bigint NOT NULL CHECK (total_length >= 0),
    PRIMARY KEY (generation, tenant, language, epoch)
);

-- From schema version 1: postings had one frequency for all fields, and lexemes were counted in each search.
DROP FUNCTION IF EXISTS headwater.lexemes(text, text);
DO $$
DECLARE
    of_generation integer;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = 'headwater.postings'::regclass AND attname = 'tf'
    ) THEN
        RETURN;
    END IF;
    ALTER TABLE headwater.postings RENAME COLUMN tf TO text_tf;
    ALTER TABLE headwater.postings
        ADD COLUMN title_tf smallint NOT NULL DEFAULT 0, ADD COLUMN heading_tf smallint NOT NULL DEFAULT 0;
    ALTER TABLE headwater.postings ALTER COLUMN title_tf DROP DEFAULT, ALTER COLUMN heading_tf DROP DEFAULT;
    FOR of_generation IN SELECT generation FROM headwater.index_state WHERE status = 'ready' LOOP
        EXECUTE format(
            'CREATE TABLE headwater.frequencies_g%1$s PARTITION OF headwater.frequencies FOR VALUES IN (%1$s)',
            of_generation
        );
        INSERT INTO headwater.frequencies (generation, epoch, chunk_count, tenant, lexeme)
        SELECT of_generation, epoch, count(*) FILTER (
            WHERE valid_from <= epoch AND (valid_to IS NULL OR valid_to > epoch)
        ), tenant, lexeme
        FROM headwater.postings CROSS JOIN (
            SELECT epoch FROM headwater.releases WHERE generation = of_generation
            UNION SELECT epoch FROM headwater.index_state WHERE generation = of_generation
        ) AS kept (epoch)
        WHERE generation = of_generation
        GROUP BY epoch, tenant, lexeme;
        EXECUTE format(
            'CREATE UNIQUE INDEX ON headwater.frequencies_g%1$s (tenant, lexeme, epoch); '
            'ALTER TABLE headwater.frequencies_g%1$s ENABLE ROW LEVEL SECURITY; '
            'ALTER TABLE headwater.frequencies_g%1$s FORCE ROW LEVEL SECURITY; '
            'CREATE POLICY owner_writes ON headwater.frequencies_g%1$s TO headwater_owner USING (true)',
            of_generation
        );
    END LOOP;
END
$$;

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
        lower(content),
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

-- Tenants. --------------------------------------------------------------------------------------------------

-- The one place that says whose rows the session may see. Unset is an error, never "all" and never "none".
CREATE OR REPLACE FUNCTION headwater.current_tenant() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
DECLARE
    tenant CONSTANT text := current_setting('headwater.tenant', true);
BEGIN
    IF coalesce(tenant, '') = '' THEN
        RAISE EXCEPTION 'no tenant is set for this transaction' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN tenant;
END
$$;

-- Forced, so that a forgotten grant to the owner shows nothing either. Equality on text is leakproof, so the
-- planner may use an index on the tenant; the scalar subselect is evaluated once a query, not once a row.
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
            'USING (tenant = (SELECT headwater.current_tenant()))',
            name
        );
    END LOOP;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA headwater FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.current_tenant(), headwater.unspaced(),
    headwater.terms(text, text, boolean) TO headwater_serving;
GRANT SELECT ON headwater.chunks, headwater.postings, headwater.frequencies, headwater.statistics,
    headwater.text_configs TO headwater_serving;
-- Lineage and a release's details speak of every tenant: not for serving.
GRANT SELECT (generation, model_digest, chunker_digest, dimension, epoch, status) ON headwater.index_state
    TO headwater_serving;
GRANT SELECT (release_id, generation, epoch, released_at) ON headwater.releases TO headwater_serving;
GRANT SELECT ON headwater.live TO headwater_serving;
