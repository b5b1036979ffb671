-- Search by words, for the serving role; search.sql says what holds for its functions.

-- Returns the lexemes of a text once for each way in which the languages read it.
CREATE OR REPLACE FUNCTION headwater_search.query_readings(languages text[], words text) RETURNS SETOF text[]
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
CREATE OR REPLACE FUNCTION headwater_search.query_lexemes(
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
CREATE OR REPLACE FUNCTION headwater_search.weighted_tf(counts bigint, field_weights float8[]) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN field_weights[3] * (counts & 65535) + CASE WHEN counts & 4294901760 = 0 THEN 0
    ELSE field_weights[1] * ((counts >> 16) & 255) + field_weights[2] * ((counts >> 24) & 255) END;

-- Returns the counts of a lexeme in one chunk of a scope: one row, or none. Blocks of a scope follow one another: a chunk
-- is in the last one that begins at or before it.
CREATE OR REPLACE FUNCTION headwater_search.chunk_posting(
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

DROP FUNCTION IF EXISTS headwater_search.rank_by_words(
    integer, bigint, text[], float8[], integer, text[], float8[], text[], float8[], float8[], float8[],
    jsonb, text[], text[], text[], integer, integer, integer, integer[], public.halfvec
);

-- Ranks chunks by the words that they hold: retrieval/search/lexical_search.py says how and calls it.
--   lexemes, weights: the words whose postings are read in full; of a single one at most `most_postings`, if not null.
--   scanned, looked_up, with weights: further words, which only add to the scores; see `added`.
--   field_weights: of the title, the headings, the text; length_weights: a chunk is penalised by [1] + [2] * length.
--   phrase_lexemes: null, or for each phrase its readings, each a set of lexemes of which a chunk holds one whole.
--   phrases, without_phrases: regular expressions; without_lexemes: words that no chunk may hold.
--   fit_only: whether chunks of documents that are not fit for training are left out.
--   pool: how many candidates are scored further; best: of these only such as can still reach the best `best`.
--   also: chunks whose scores are returned, whatever their rank.
-- Rows: the best chunks with chunk_id; the chunks of `also` without; and one whose score says how many were found.
CREATE OR REPLACE FUNCTION headwater_search.rank_by_words(
    of_generation integer, at_epoch bigint,
    lexemes text[], weights float8[], most_postings integer,
    scanned text[], scanned_weights float8[], looked_up text[], looked_up_weights float8[],
    field_weights float8[], length_weights float8[],
    phrase_lexemes jsonb, phrases text[], without_phrases text[], without_lexemes text[],
    pool integer, best integer, depth integer, also integer[], query_vector public.halfvec,
    fit_only boolean DEFAULT false
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
    IF (depth BETWEEN 1 AND 10000 AND pool >= 1 AND best >= 1 AND cardinality(also) <= 10000
        AND cardinality(lexemes || scanned || looked_up) <= 10000) IS NOT TRUE THEN
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
                headwater_search.weighted_tf(counts, field_weights) AS tf
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
                headwater_search.weighted_tf(counts, field_weights) AS tf
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
                CROSS JOIN LATERAL headwater_search.chunk_posting(
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
                AND (training_fit OR NOT fit_only)
                AND (cardinality(phrases) = 0 OR NOT EXISTS (
                    SELECT FROM unnest(phrases) AS pattern
                    WHERE concat_ws(E'\n', c.title, c.heading, c.text) !~* pattern
                )) AND (cardinality(without_phrases) = 0 OR NOT EXISTS (
                    SELECT FROM unnest(without_phrases) AS pattern
                    WHERE concat_ws(E'\n', c.title, c.heading, c.text) ~* pattern
                )) AND (cardinality(without_lexemes) = 0 OR NOT EXISTS (
                    SELECT FROM unnest(without_lexemes) AS without
                    CROSS JOIN LATERAL headwater_search.chunk_posting(of_generation, c.scope, without, c.chunk_no) held
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
CREATE OR REPLACE FUNCTION headwater_search.matching_chunks(
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
            CROSS JOIN LATERAL headwater_search.chunk_posting(of_generation, c.scope, without, c.chunk_no) held
        ));
END
$$;
