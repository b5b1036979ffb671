-- How text becomes lexemes.

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

-- Matches scripts that are written without spaces between words, and Hangul, whose words carry their particles.
CREATE OR REPLACE FUNCTION headwater.unspaced() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f'
    || '\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]+';

-- Returns the lexemes of a text and how often each occurs; documents and queries are both read by it:
-- * words, stemmed by the language's configuration; ASCII punctuation always ends one, because PostgreSQL's
--   parser takes `and/or` for a file, `<int>` for markup and the 19 of `COVID-19` for a negative number;
-- * identifiers as they stand, beside their words: `delta-spark==4.4.0`, in it `delta-spark` and `4.4.0`,
--   `std::vector`, `a.b@example.com`, `c++`;
-- * of a script without spaces, pairs of characters and single ones; of a query, single ones only where they
--   stand alone.
-- A word of more than 1,000 bytes is none: with its scope it would not fit a key of a B-tree. The database's
-- collation says what a letter is, as in PostgreSQL's parser, whatever the collation of the arguments.
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
    WHERE octet_length(words.lexeme) <= 1000
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
