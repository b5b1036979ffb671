-- What holds for all functions of the reader's, and who may execute them.

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

GRANT EXECUTE ON FUNCTION headwater_search.begin_reading(), headwater_search.read_snapshot(integer, bigint),
    headwater_search.query_readings(text[], text),
    headwater_search.query_lexemes(integer, bigint, text[], bigint[], text, integer),
    headwater_search.rank_by_words(
        integer, bigint, text[], float8[], integer, text[], float8[], text[], float8[], float8[], float8[],
        jsonb, text[], text[], text[], integer, integer, integer, integer[], public.halfvec, boolean
    ),
    headwater_search.matching_chunks(integer, bigint, bigint[], text[], text[], text[]),
    headwater_search.nearest_by_graph(integer, bigint, bigint, public.halfvec, integer, integer, integer, boolean),
    headwater_search.nearest_by_comparison(integer, bigint, bigint[], public.halfvec, integer, boolean),
    headwater_search.read_chunks(integer, bigint, bigint[])
    TO headwater_serving;

SET LOCAL ROLE headwater_owner;
