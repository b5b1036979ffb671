-- What the serving role may execute. It selects from nothing.
--
-- Each function that reads rows takes the reader's proof first and raises before it reads. Its owner, headwater_reader,
-- is itself under forced row policies. Its SQL is written here, its search_path and every setting of the planner are
-- fixed (grants.sql), and its plans are custom ones, so that the caller's own settings change nothing and its plan is
-- not the caller's to see. An index scan begins at a scope or at a chunk's number, so that no row of another tenant is
-- compared with anything that the caller chose.

SELECT '[1]'::public.halfvec;  -- loads pgvector, whose settings are then checked
SET LOCAL ROLE headwater_reader;

-- Begins a read: returns what a proof has to name. From now on, dropping a generation waits for this transaction. One
-- that was dropped after the transaction's snapshot was taken is an error (serialization_failure): begin again.
CREATE OR REPLACE FUNCTION headwater_search.begin_reading() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
AS $$
BEGIN
    LOCK TABLE ONLY headwater.chunks, ONLY headwater.postings, ONLY headwater.frequencies IN ACCESS SHARE MODE;
    IF EXISTS (
        SELECT FROM headwater.index_state
        WHERE status = 'ready' AND to_regclass('headwater.chunks_g' || generation) IS NULL
    ) THEN
        RAISE EXCEPTION 'a generation of the index was dropped just now' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN headwater.this_transaction();
END
$$;

-- Returns a point of the index with the counts of the reader's chunks in it, by scope and language: one row with nulls
-- where the reader has none, no row where there is no such point. Without a generation it is the live release.
CREATE OR REPLACE FUNCTION headwater_search.read_snapshot(of_generation integer, at_epoch bigint)
RETURNS TABLE (
    generation integer, epoch bigint, dimension integer, model_digest text,
    scope_key bigint, has_graph boolean, language text, chunk_count bigint, total_length bigint
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
#variable_conflict use_column
BEGIN
    PERFORM headwater.visible_scopes();
    RETURN QUERY
    WITH point AS (
        SELECT generation, r.epoch FROM headwater.live JOIN headwater.releases r USING (release_id)
        WHERE of_generation IS NULL
        UNION ALL
        -- Between releases rows may be pruned: such an epoch is not half read.
        SELECT generation, at_epoch FROM headwater.index_state s
        WHERE generation = of_generation AND status = 'ready' AND (epoch = at_epoch OR EXISTS (
            SELECT FROM headwater.releases r WHERE r.generation = s.generation AND r.epoch = at_epoch
        ))
    )
    SELECT p.generation, p.epoch, s.dimension, s.model_digest, k.scope_key, g.scope_key IS NOT NULL,
        newest.language, newest.chunk_count, newest.total_length
    FROM point p JOIN headwater.index_state s USING (generation)
    LEFT JOIN LATERAL (
        SELECT DISTINCT ON (scope, language) scope, language, chunk_count, total_length
        FROM headwater.statistics t WHERE t.generation = p.generation AND t.epoch <= p.epoch
        ORDER BY scope, language, epoch DESC
    ) newest ON newest.chunk_count > 0
    LEFT JOIN headwater.scopes k ON k.scope = newest.scope
    LEFT JOIN headwater.graphs g ON g.generation = p.generation AND g.scope_key = k.scope_key
    ORDER BY newest.language;
END
$$;

-- Versions before 7 could not leave out what is not fit for training: their functions would stay beside these.
DROP FUNCTION IF EXISTS headwater_search.nearest_by_graph(
    integer, bigint, bigint, public.halfvec, integer, integer, integer
), headwater_search.nearest_by_comparison(integer, bigint, bigint[], public.halfvec, integer);

-- Returns the chunks of one scope nearest to a vector, by the graph over that scope's chunks: fewer than `depth` where
-- too many of those that the graph meets are not in this epoch, or not fit where only those are asked for.
CREATE OR REPLACE FUNCTION headwater_search.nearest_by_graph(
    of_generation integer, at_epoch bigint, of_scope_key bigint, query_vector public.halfvec,
    depth integer, ef_search integer, max_scan_tuples integer, fit_only boolean DEFAULT false
)
RETURNS TABLE (chunk_no bigint, chunk_id text, similarity float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET hnsw.ef_search = 40 SET hnsw.iterative_scan = 'relaxed_order' SET hnsw.max_scan_tuples = 20000
-- PostgreSQL plans for an average scope: it would sort all chunks of a large one rather than use its graph.
SET enable_sort = off
AS $$
DECLARE
    indexed text;
BEGIN
    -- A graph over the chunks of others is not gone through, whatever it would show.
    IF NOT EXISTS (
        SELECT FROM headwater.scopes WHERE scope_key = of_scope_key AND scope = ANY (headwater.visible_scopes())
    ) THEN
        RAISE EXCEPTION 'the reader has no such scope' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- pgvector silently returns fewer rows beyond its own limits, so larger values are errors.
    PERFORM set_config('hnsw.ef_search', ef_search::text, true),
        set_config('hnsw.max_scan_tuples', max_scan_tuples::text, true);
    IF (depth BETWEEN 1 AND ef_search) IS NOT TRUE THEN
        RAISE EXCEPTION 'a search of % candidates can not give %', ef_search, depth
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    indexed := format(
        'embedding::public.halfvec(%s)',
        (SELECT dimension FROM headwater.index_state WHERE generation = of_generation)
    );
    -- Relaxed order returns rows nearly sorted; the caller sorts them. What is put into the SQL are our own integers:
    -- the graph is an index of an expression with the dimension in it.
    RETURN QUERY EXECUTE format(
        'SELECT chunk_no, chunk_id, 1 - (%1$s OPERATOR(public.<=>) $1) FROM headwater.chunks '
        'WHERE generation = %2$s AND scope_key = %3$L::bigint AND valid_from <= $2 AND (valid_to IS NULL OR valid_to > $2) '
        '%4$s ORDER BY %1$s OPERATOR(public.<=>) $1 LIMIT $3',
        indexed, of_generation, of_scope_key, CASE WHEN fit_only THEN 'AND training_fit' ELSE '' END
    ) USING query_vector, at_epoch, depth;
END
$$;

-- Returns the chunks nearest to a vector, by comparing every chunk of the reader's scopes with these keys, or of all.
CREATE OR REPLACE FUNCTION headwater_search.nearest_by_comparison(
    of_generation integer, at_epoch bigint, scope_keys bigint[], query_vector public.halfvec, depth integer,
    fit_only boolean DEFAULT false
)
RETURNS TABLE (chunk_no bigint, chunk_id text, similarity float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
#variable_conflict use_column
DECLARE
    visible CONSTANT text[] := headwater.visible_scopes();
    compared CONSTANT text[] := CASE WHEN scope_keys IS NULL THEN visible ELSE ARRAY(
        SELECT scope FROM headwater.scopes WHERE scope = ANY (visible) AND scope_key = ANY (scope_keys)
    ) END;
BEGIN
    IF (depth BETWEEN 1 AND 10000) IS NOT TRUE THEN
        RAISE EXCEPTION 'a search is for 1 to 10000 chunks' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Without the cast to the dimension this is not the expression of a graph, so every chunk is compared.
    RETURN QUERY
    SELECT chunk_no, chunk_id, 1 - distance FROM (
        SELECT chunk_no, chunk_id, embedding OPERATOR(public.<=>) query_vector AS distance
        FROM headwater.chunks
        WHERE generation = of_generation AND scope = ANY (compared)
            AND valid_from <= at_epoch AND (valid_to IS NULL OR valid_to > at_epoch)
            AND (training_fit OR NOT fit_only)
        ORDER BY distance, chunk_id LIMIT depth
    ) near;
END
$$;

-- Returns what a hit shows of each of these chunks.
CREATE OR REPLACE FUNCTION headwater_search.read_chunks(of_generation integer, at_epoch bigint, chunk_nos bigint[])
RETURNS TABLE (
    chunk_no bigint, chunk_id text, doc_id text, uri text, title text, heading text, content_sha256 text,
    char_start integer, char_end integer, text text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
#variable_conflict use_column
BEGIN
    PERFORM headwater.visible_scopes();
    RETURN QUERY
    SELECT chunk_no, chunk_id, doc_id, uri, title, heading, content_sha256, char_start, char_end, text
    FROM headwater.chunks
    WHERE chunk_no = ANY (chunk_nos) AND generation = of_generation
        AND valid_from <= at_epoch AND (valid_to IS NULL OR valid_to > at_epoch);
END
$$;
