-- What the serving role may execute. It selects from nothing.
--
-- Each function takes the reader's proof first and raises before it reads. Its owner, headwater_reader, is itself under
-- forced row policies. Its SQL is written here, its search_path and every setting of the planner are fixed (below), and
-- its plans are custom ones, so that the caller's own settings change nothing and its plan is not the caller's to see.
-- An index scan begins at a scope or at a chunk's number, so that no row of another tenant is compared with anything
-- that the caller chose.

GRANT CREATE ON SCHEMA headwater TO headwater_reader;
SELECT '[1]'::public.halfvec;  -- loads pgvector, whose settings are then checked
SET LOCAL ROLE headwater_reader;

-- Begins a read: returns what a proof has to name. From now on, dropping a generation waits for this transaction. One
-- that was dropped after the transaction's snapshot was taken is an error (serialization_failure): begin again.
CREATE OR REPLACE FUNCTION headwater.begin_reading() RETURNS text
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
CREATE OR REPLACE FUNCTION headwater.read_snapshot(of_generation integer, at_epoch bigint)
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

-- Returns the lexemes of a text once for each way in which the languages read it.
CREATE OR REPLACE FUNCTION headwater.query_readings(languages text[], words text) RETURNS SETOF text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
BEGIN
    RETURN QUERY SELECT DISTINCT (
        SELECT coalesce(array_agg(lexeme ORDER BY lexeme), '{}') FROM headwater.terms(language, words, true)
    ) FROM unnest(languages) AS language;
END
$$;

-- Returns the lexemes of a query that the reader's chunks hold, rarest first: how often the query holds each, how many
-- chunks are in the languages that read the query so, and how many chunks hold it.
CREATE OR REPLACE FUNCTION headwater.query_lexemes(
    of_generation integer, at_epoch bigint, languages text[], language_chunks bigint[], words text, most integer
)
RETURNS TABLE (lexeme text, asked integer, among bigint, chunk_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
#variable_conflict use_column
BEGIN
    PERFORM headwater.visible_scopes();
    RETURN QUERY
    SELECT lexeme, asked, among, sum(chunk_count)::bigint
    FROM (
        SELECT lexeme, max(tf) AS asked, sum(chunks)::bigint AS among
        FROM unnest(languages, language_chunks) AS languages (language, chunks)
        CROSS JOIN LATERAL headwater.terms(language, words, true) GROUP BY lexeme
    ) terms
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (scope) chunk_count FROM headwater.frequencies f
        WHERE f.lexeme = terms.lexeme AND generation = of_generation AND epoch <= at_epoch
        ORDER BY scope, epoch DESC
    ) newest
    GROUP BY lexeme, asked, among HAVING sum(chunk_count) > 0 ORDER BY sum(chunk_count), lexeme
    LIMIT most;
END
$$;

-- Returns how often a chunk holds a lexeme, each field's count weighted (title, headings, text), from a posting's counts.
-- Inlined by the planner, as the next one is: most chunks that hold a word hold it only in their text.
CREATE OR REPLACE FUNCTION headwater.weighted_tf(counts bigint, field_weights float8[]) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN field_weights[3] * (counts & 65535) + CASE WHEN counts & 4294901760 = 0 THEN 0
    ELSE field_weights[1] * ((counts >> 16) & 255) + field_weights[2] * ((counts >> 24) & 255) END;

-- Returns the counts of a lexeme in one chunk of a scope: one row, or none. Blocks of a scope follow one another: a chunk
-- is in the last one that begins at or before it.
CREATE OR REPLACE FUNCTION headwater.chunk_posting(
    of_generation integer, of_scope text, of_lexeme text, of_chunk_no bigint
)
RETURNS TABLE (counts bigint)
LANGUAGE sql STABLE
AS $$
    SELECT block.counts[place] FROM (
        SELECT p.chunk_nos, p.counts, width_bucket(of_chunk_no::integer, p.chunk_nos) AS place
        FROM headwater.postings p
        WHERE p.generation = of_generation AND p.scope = of_scope AND p.lexeme = of_lexeme
            AND p.first_no <= of_chunk_no
        ORDER BY p.first_no DESC LIMIT 1
    ) block WHERE block.chunk_nos[place] = of_chunk_no
$$;

-- Ranks chunks by the words that they hold: retrieval/search/lexical_search.py says how and calls it.
--   lexemes, weights: the words whose postings are read in full; of a single one at most `most_postings`, if not null.
--   scanned, looked_up, with weights: further words, which only add to the scores; see `added`.
--   field_weights: of the title, the headings, the text; length_weights: a chunk is penalised by [1] + [2] * length.
--   phrase_lexemes: null, or for each phrase its readings, each a set of lexemes of which a chunk holds one whole.
--   phrases, without_phrases: regular expressions; without_lexemes: words that no chunk may hold.
--   pool: how many candidates are scored further; best: of these only such as can still reach the best `best`.
--   also: chunks whose scores are returned, whatever their rank.
-- Rows: the best chunks with chunk_id; the chunks of `also` without; and one whose score says how many were found.
CREATE OR REPLACE FUNCTION headwater.rank_by_words(
    of_generation integer, at_epoch bigint,
    lexemes text[], weights float8[], most_postings integer,
    scanned text[], scanned_weights float8[], looked_up text[], looked_up_weights float8[],
    field_weights float8[], length_weights float8[],
    phrase_lexemes jsonb, phrases text[], without_phrases text[], without_lexemes text[],
    pool integer, best integer, depth integer, also integer[], query_vector public.halfvec
)
RETURNS TABLE (chunk_no integer, chunk_id text, score float8, similarity float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
#variable_conflict use_column
DECLARE
    -- All that the words not read in full could add to a score.
    most_added CONSTANT float8 := coalesce(
        (SELECT sum(weight) FROM unnest(scanned_weights || looked_up_weights) AS weight), 0
    );
BEGIN
    PERFORM headwater.visible_scopes();
    IF depth NOT BETWEEN 1 AND 10000 OR cardinality(also) > 10000
        OR cardinality(lexemes || scanned || looked_up) > 10000 THEN
        RAISE EXCEPTION 'a ranking is of at most 10000 chunks and words' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
    WITH found AS MATERIALIZED (
        -- weight * tf / (tf + k1 (1 - b + b length / mean)), written with tf once: PostgreSQL computes tf wherever it
        -- stands, and that is most of the cost of a posting. Rounded, so that the order of a sum never decides.
        SELECT chunk_no,
            round(1e9 * sum(weight / (1 + (length_weights[1] + length_weights[2] * length) / tf))) / 1e9 AS score
        FROM (
            SELECT lexeme, weight, chunk_no, (counts >> 32) AS length,
                headwater.weighted_tf(counts, field_weights) AS tf
            FROM unnest(lexemes, weights) AS words (lexeme, weight)
            CROSS JOIN LATERAL (
                SELECT unnest(p.chunk_nos) AS chunk_no, unnest(p.counts) AS counts
                FROM headwater.postings p
                WHERE p.generation = of_generation AND p.lexeme = words.lexeme AND most_postings IS NULL
                UNION ALL
                -- The newest, because the postings of closed chunks, which are still there, are among the older ones.
                (
                    SELECT unnest(p.chunk_nos), unnest(p.counts)
                    FROM headwater.postings p
                    WHERE p.generation = of_generation AND p.lexeme = words.lexeme AND most_postings IS NOT NULL
                    ORDER BY p.first_no DESC LIMIT most_postings
                )
            ) postings
        ) counted
        GROUP BY chunk_no
        HAVING phrase_lexemes IS NULL OR NOT EXISTS (
            SELECT FROM jsonb_array_elements(phrase_lexemes) AS phrase WHERE NOT EXISTS (
                SELECT FROM jsonb_array_elements(phrase) AS reading
                WHERE array_agg(lexeme) @> ARRAY(SELECT jsonb_array_elements_text(reading))
            )
        )
    ), cut AS MATERIALIZED (
        SELECT array_agg(score) AS highest
        FROM (SELECT score FROM found ORDER BY score DESC LIMIT pool::bigint + 1) highest
    ), picked AS MATERIALIZED (
        SELECT chunk_no, score, score >= coalesce((SELECT highest[pool] FROM cut), 0) AS ranked
        FROM found
        WHERE score >= coalesce((SELECT highest[pool] FROM cut), 0) OR chunk_no = ANY (also)
    ), asked AS MATERIALIZED (
        -- A candidate that even all of the other words could not bring among the best is not scored further.
        SELECT chunk_no, score, ranked FROM picked
        WHERE score >= coalesce((SELECT highest[best] FROM cut), 0) - most_added OR chunk_no = ANY (also)
        UNION ALL
        SELECT chunk_no, 0, false FROM unnest(also) AS also (chunk_no)
        WHERE chunk_no NOT IN (SELECT chunk_no FROM picked)
    ), added AS (
        SELECT chunk_no,
            round(1e9 * sum(weight / (1 + (length_weights[1] + length_weights[2] * length) / tf))) / 1e9 AS added
        FROM (
            SELECT weight, chunk_no, (counts >> 32) AS length,
                headwater.weighted_tf(counts, field_weights) AS tf
            FROM (
                -- All blocks of a word are scanned, each matched with the chunks between its first and last number.
                SELECT weight, chunk_no, counts[width_bucket(chunk_no, chunk_nos)] AS counts
                FROM (
                    SELECT weight, p.chunk_nos, p.counts, unnest(nos[
                        width_bucket(p.first_no::integer - 1, nos) + 1
                        : width_bucket(p.chunk_nos[cardinality(p.chunk_nos)], nos)
                    ]) AS chunk_no
                    FROM (SELECT array_agg(chunk_no ORDER BY chunk_no) AS nos FROM asked) sorted
                    CROSS JOIN unnest(scanned, scanned_weights) AS words (lexeme, weight)
                    JOIN headwater.postings p ON p.generation = of_generation AND p.lexeme = words.lexeme
                    WHERE cardinality(scanned) > 0
                ) blocks
                WHERE chunk_nos[width_bucket(chunk_no, chunk_nos)] = chunk_no
                UNION ALL
                -- For a word of too many blocks, the block of each chunk is looked up instead.
                SELECT weight, c.chunk_no::integer, counts
                FROM unnest(looked_up, looked_up_weights) AS words (lexeme, weight)
                CROSS JOIN asked
                JOIN headwater.chunks c ON c.chunk_no = asked.chunk_no AND c.generation = of_generation
                CROSS JOIN LATERAL headwater.chunk_posting(
                    of_generation, c.scope, words.lexeme, c.chunk_no
                ) held
                WHERE cardinality(looked_up) > 0
            ) postings
        ) counted
        GROUP BY chunk_no
    ), scored AS MATERIALIZED (
        SELECT chunk_no, score + coalesce(added, 0) AS score, ranked FROM asked LEFT JOIN added USING (chunk_no)
    )
    (
        -- Chunks are tested on their text from the best on, until there are enough.
        SELECT chunk_no, chunk_id, score, similarity
        FROM (SELECT chunk_no, score FROM scored WHERE ranked ORDER BY score DESC OFFSET 0) highest
        CROSS JOIN LATERAL (
            SELECT chunk_id, 1 - (embedding OPERATOR(public.<=>) query_vector) AS similarity
            FROM headwater.chunks c
            WHERE c.chunk_no = highest.chunk_no AND generation = of_generation
                AND valid_from <= at_epoch AND (valid_to IS NULL OR valid_to > at_epoch)
                AND (cardinality(phrases) = 0 OR NOT EXISTS (
                    SELECT FROM unnest(phrases) AS pattern
                    WHERE concat_ws(E'\n', c.title, c.heading, c.text) !~* pattern
                )) AND (cardinality(without_phrases) = 0 OR NOT EXISTS (
                    SELECT FROM unnest(without_phrases) AS pattern
                    WHERE concat_ws(E'\n', c.title, c.heading, c.text) ~* pattern
                )) AND (cardinality(without_lexemes) = 0 OR NOT EXISTS (
                    SELECT FROM unnest(without_lexemes) AS without
                    CROSS JOIN LATERAL headwater.chunk_posting(of_generation, c.scope, without, c.chunk_no) held
                ))
            LIMIT 1
        ) chunks
        ORDER BY score DESC FETCH FIRST depth ROWS WITH TIES
    )
    UNION ALL
    SELECT chunk_no, NULL, score, NULL FROM scored WHERE chunk_no = ANY (also)
    UNION ALL
    SELECT NULL, NULL, cardinality(highest), NULL FROM cut;
END
$$;

-- Returns those of the chunks that hold every phrase and nothing that they may not hold; see rank_by_words.
CREATE OR REPLACE FUNCTION headwater.matching_chunks(
    of_generation integer, at_epoch bigint, chunk_nos bigint[],
    phrases text[], without_phrases text[], without_lexemes text[]
)
RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
BEGIN
    PERFORM headwater.visible_scopes();
    RETURN QUERY SELECT c.chunk_no FROM headwater.chunks c
    WHERE c.chunk_no = ANY (chunk_nos) AND c.generation = of_generation
        AND c.valid_from <= at_epoch AND (c.valid_to IS NULL OR c.valid_to > at_epoch)
        AND (cardinality(phrases) = 0 OR NOT EXISTS (
            SELECT FROM unnest(phrases) AS pattern
            WHERE concat_ws(E'\n', c.title, c.heading, c.text) !~* pattern
        )) AND (cardinality(without_phrases) = 0 OR NOT EXISTS (
            SELECT FROM unnest(without_phrases) AS pattern
            WHERE concat_ws(E'\n', c.title, c.heading, c.text) ~* pattern
        )) AND (cardinality(without_lexemes) = 0 OR NOT EXISTS (
            SELECT FROM unnest(without_lexemes) AS without
            CROSS JOIN LATERAL headwater.chunk_posting(of_generation, c.scope, without, c.chunk_no) held
        ));
END
$$;

-- Returns the chunks of one scope nearest to a vector, by the graph over that scope's chunks: fewer than `depth` where
-- too many of those that the graph meets are not in this epoch.
CREATE OR REPLACE FUNCTION headwater.nearest_by_graph(
    of_generation integer, at_epoch bigint, of_scope_key bigint, query_vector public.halfvec,
    depth integer, ef_search integer, max_scan_tuples integer
)
RETURNS TABLE (chunk_no bigint, chunk_id text, similarity float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET hnsw.ef_search = 40 SET hnsw.iterative_scan = 'relaxed_order' SET hnsw.max_scan_tuples = 20000
-- PostgreSQL plans for an average scope: it would sort all chunks of a large one rather than use its graph.
SET enable_sort = off
AS $$
DECLARE
    indexed CONSTANT text := format(
        'embedding::public.halfvec(%s)',
        (SELECT dimension FROM headwater.index_state WHERE generation = of_generation)
    );
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
    IF depth NOT BETWEEN 1 AND ef_search THEN
        RAISE EXCEPTION 'a search of % candidates can not give %', ef_search, depth
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Relaxed order returns rows nearly sorted; the caller sorts them. What is put into the SQL are our own integers:
    -- the graph is an index of an expression with the dimension in it.
    RETURN QUERY EXECUTE format(
        'SELECT chunk_no, chunk_id, 1 - (%1$s OPERATOR(public.<=>) $1) FROM headwater.chunks '
        'WHERE generation = %2$s AND scope_key = %3$L::bigint AND valid_from <= $2 AND (valid_to IS NULL OR valid_to > $2) '
        'ORDER BY %1$s OPERATOR(public.<=>) $1 LIMIT $3',
        indexed, of_generation, of_scope_key
    ) USING query_vector, at_epoch, depth;
END
$$;

-- Returns the chunks nearest to a vector, by comparing every chunk of the reader's scopes with these keys, or of all.
CREATE OR REPLACE FUNCTION headwater.nearest_by_comparison(
    of_generation integer, at_epoch bigint, scope_keys bigint[], query_vector public.halfvec, depth integer
)
RETURNS TABLE (chunk_no bigint, chunk_id text, similarity float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
#variable_conflict use_column
DECLARE
    compared CONSTANT text[] := ARRAY(
        SELECT scope FROM headwater.scopes
        WHERE scope = ANY (headwater.visible_scopes()) AND (scope_keys IS NULL OR scope_key = ANY (scope_keys))
    );
BEGIN
    IF depth NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'a search is for 1 to 10000 chunks' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Without the cast to the dimension this is not the expression of a graph, so every chunk is compared.
    RETURN QUERY
    SELECT chunk_no, chunk_id, 1 - distance FROM (
        SELECT chunk_no, chunk_id, embedding OPERATOR(public.<=>) query_vector AS distance
        FROM headwater.chunks
        WHERE generation = of_generation AND scope = ANY (compared)
            AND valid_from <= at_epoch AND (valid_to IS NULL OR valid_to > at_epoch)
        ORDER BY distance, chunk_id LIMIT depth
    ) near;
END
$$;

-- Returns what a hit shows of each of these chunks.
CREATE OR REPLACE FUNCTION headwater.read_chunks(of_generation integer, at_epoch bigint, chunk_nos bigint[])
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

-- Fixes every setting that could change a plan, and those that print plans, to what the administrator's session has: the
-- caller's session can't. Rows are found by an index alone, so that none of another tenant is passed.
DO $$
DECLARE
    of regprocedure;
    setting text;
BEGIN
    FOR of IN SELECT oid FROM pg_proc WHERE proowner = 'headwater_reader'::regrole LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', of);
        -- Others are inlined into these.
        CONTINUE WHEN NOT (SELECT prosecdef FROM pg_proc WHERE oid = of);
        FOR setting IN
            SELECT name FROM pg_settings WHERE context = 'user' AND (
                category LIKE 'Query Tuning%' OR name LIKE 'debug\_print\_%' OR name IN (
                    'work_mem', 'hash_mem_multiplier', 'effective_io_concurrency', 'default_text_search_config',
                    'client_min_messages', 'row_security'
                )
            ) AND NOT (name = 'enable_sort' AND of::text LIKE '%nearest_by_graph%')
        LOOP
            EXECUTE format('ALTER FUNCTION %s SET %I FROM CURRENT', of, setting);
        END LOOP;
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_custom_plan', of);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', of);
        EXECUTE format('ALTER FUNCTION %s SET max_parallel_workers_per_gather = 0', of);
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', of);
    END LOOP;
END
$$;

GRANT EXECUTE ON FUNCTION headwater.begin_reading(), headwater.read_snapshot(integer, bigint),
    headwater.query_readings(text[], text),
    headwater.query_lexemes(integer, bigint, text[], bigint[], text, integer),
    headwater.rank_by_words(
        integer, bigint, text[], float8[], integer, text[], float8[], text[], float8[], float8[], float8[],
        jsonb, text[], text[], text[], integer, integer, integer, integer[], public.halfvec
    ),
    headwater.matching_chunks(integer, bigint, bigint[], text[], text[], text[]),
    headwater.nearest_by_graph(integer, bigint, bigint, public.halfvec, integer, integer, integer),
    headwater.nearest_by_comparison(integer, bigint, bigint[], public.halfvec, integer),
    headwater.read_chunks(integer, bigint, bigint[])
    TO headwater_serving;

SET LOCAL ROLE headwater_owner;
REVOKE CREATE ON SCHEMA headwater FROM headwater_reader;
