-- Who may read which rows.

-- A row's scope says who may read it: the tenant, and where not everybody of the tenant may, U+001F and the groups that
-- may, joined by commas (retrieval/access.py). Its key stands for it where everybody can read: a random number.
CREATE TABLE IF NOT EXISTS headwater.scopes (
    scope text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    groups text[] NOT NULL
);
ALTER TABLE headwater.scopes ADD COLUMN IF NOT EXISTS scope_key bigint NOT NULL UNIQUE
    DEFAULT ('x' || encode(substr(sha256(uuid_send(gen_random_uuid())), 1, 8), 'hex'))::bit(64)::bigint;
CREATE INDEX IF NOT EXISTS scopes_of_tenant ON headwater.scopes (tenant);

-- The secret with which the application proves its claims (RFC 2104): one SHA-256 block, and the same with each of
-- HMAC's pads. Only the owner may read it.
CREATE TABLE IF NOT EXISTS headwater.access_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    secret bytea NOT NULL CHECK (length(secret) = 64),
    inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64)
);

-- Names what a proof is valid for: this transaction of this session.
CREATE OR REPLACE FUNCTION headwater.this_transaction() RETURNS text
LANGUAGE sql STABLE
RETURN pg_backend_pid() || '.' || (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint;

-- Returns the scopes that the session may see: those of the tenant and groups that `headwater.access` claims, if its
-- proof holds. Any SQL may set that variable, but only who has the key can make the proof. An unset or unproven claim
-- is an error, never "all" and never "none". Parallel restricted, because a parallel worker has another pid.
CREATE OR REPLACE FUNCTION headwater.visible_scopes() RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- Its callers ask for custom plans; planning anew would take longer than all the rest.
SET plan_cache_mode = force_generic_plan
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
    -- Comparing hashes takes a time that says nothing of the proof.
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

-- Row-level security is forced, so that a mistaken grant of the owner's role shows nothing either. Equality on text is
-- leakproof, so the planner may use an index on the scope; the scalar subselect is evaluated once per query.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['chunks', 'postings', 'frequencies', 'statistics', 'scopes'] LOOP
        EXECUTE format('ALTER TABLE headwater.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE headwater.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('DROP POLICY IF EXISTS owner_writes ON headwater.%I', name);
        EXECUTE format('CREATE POLICY owner_writes ON headwater.%I TO headwater_owner USING (true)', name);
        EXECUTE format('DROP POLICY IF EXISTS tenant_reads ON headwater.%I', name);
        EXECUTE format(
            'CREATE POLICY tenant_reads ON headwater.%I FOR SELECT TO headwater_reader '
            'USING (scope = ANY ((SELECT headwater.visible_scopes())::text[]))',
            name
        );
    END LOOP;
END
$$;

DO $$
DECLARE
    of regprocedure;
BEGIN
    FOR of IN SELECT oid FROM pg_proc WHERE proowner = 'headwater_owner'::regrole LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC, headwater_serving', of);
    END LOOP;
END
$$;
REVOKE ALL ON ALL TABLES IN SCHEMA headwater FROM headwater_serving;
GRANT EXECUTE ON FUNCTION headwater.visible_scopes(), headwater.this_transaction(), headwater.unspaced(),
    headwater.terms(text, text, boolean) TO headwater_reader;
GRANT SELECT ON headwater.chunks, headwater.postings, headwater.frequencies, headwater.statistics, headwater.scopes,
    headwater.graphs, headwater.text_configs, headwater.live TO headwater_reader;
-- Lineage and a release's details concern every tenant.
GRANT SELECT (generation, model_digest, chunker_digest, dimension, epoch, status) ON headwater.index_state
    TO headwater_reader;
GRANT SELECT (release_id, generation, epoch, released_at) ON headwater.releases TO headwater_reader;
