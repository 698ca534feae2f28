CREATE SCHEMA prediction_log;
CREATE TABLE prediction_log.decisions (
    sequence bigint NOT NULL,
    action text NOT NULL,
    source text,
    prediction_id text,
    since_us bigint NOT NULL,
    until_us bigint NOT NULL,
    time_us bigint NOT NULL,
    who text NOT NULL,
    reason text NOT NULL
);
ALTER TABLE prediction_log.decisions ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME prediction_log.decisions_sequence_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE prediction_log.feedback (
    sequence bigint NOT NULL,
    prediction_id uuid NOT NULL,
    role text DEFAULT 'champion'::text NOT NULL,
    true_label integer NOT NULL,
    source text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    CONSTRAINT feedback_role_check CHECK ((role = 'champion'::text))
);
ALTER TABLE prediction_log.feedback ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME prediction_log.feedback_sequence_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE prediction_log.predictions (
    prediction_id uuid NOT NULL,
    role text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    model_version text NOT NULL,
    label integer NOT NULL,
    confidence double precision NOT NULL,
    probabilities real[] NOT NULL,
    statistics real[] NOT NULL,
    embedding bytea NOT NULL,
    image_sha256 text NOT NULL,
    latency_ms double precision NOT NULL,
    client text,
    model_name text,
    model_digest text,
    expire_at timestamp with time zone,
    labelled boolean DEFAULT false NOT NULL,
    CONSTRAINT predictions_role_check CHECK ((role = ANY (ARRAY['champion'::text, 'shadow'::text])))
);
CREATE TABLE prediction_log.version (
    version integer NOT NULL
);
INSERT INTO prediction_log.decisions OVERRIDING SYSTEM VALUE VALUES (1, 'discard', 'liar', NULL, 0, 253402300800000000, 1795000090000000, 'bob', 'each label is wrong');
INSERT INTO prediction_log.decisions OVERRIDING SYSTEM VALUE VALUES (2, 'quarantine', 'page', NULL, 0, 253402300800000000, 1795000091000000, 'drift flow', 'labels disagree');
INSERT INTO prediction_log.decisions OVERRIDING SYSTEM VALUE VALUES (3, 'restore', NULL, '019a1b2c-3d4e-7f00-8a00-000000000003', 0, 253402300800000000, 1795000092000000, 'bob', 'I looked');
INSERT INTO prediction_log.feedback OVERRIDING SYSTEM VALUE VALUES (1, '019a1b2c-3d4e-7f00-8a00-000000000001', 'champion', 3, 'page', '2026-11-18 11:07:40+00');
INSERT INTO prediction_log.feedback OVERRIDING SYSTEM VALUE VALUES (2, '019a1b2c-3d4e-7f00-8a00-000000000001', 'champion', 1, 'review', '2026-11-18 11:07:41+00');
INSERT INTO prediction_log.feedback OVERRIDING SYSTEM VALUE VALUES (3, '019a1b2c-3d4e-7f00-8a00-000000000001', 'champion', 9, 'ann', '2026-11-18 11:07:42+00');
INSERT INTO prediction_log.feedback OVERRIDING SYSTEM VALUE VALUES (4, '019a1b2c-3d4e-7f00-8a00-000000000002', 'champion', 8, 'liar', '2026-11-18 11:07:43+00');
INSERT INTO prediction_log.feedback OVERRIDING SYSTEM VALUE VALUES (5, '019a1b2c-3d4e-7f00-8a00-000000000003', 'champion', 4, 'page', '2026-11-18 11:07:44+00');
INSERT INTO prediction_log.feedback OVERRIDING SYSTEM VALUE VALUES (6, '019a1b2c-3d4e-7f00-8a00-000000000004', 'champion', 6, 'bob', '2026-11-18 11:07:45+00');
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000000', 'champion', '2026-11-18 11:06:40+00', '1', 0, 0.625, '{0.625,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977}', '{0,0.125,0.25,0.375,0.5,0.625,0.75,0.875}', '\x000000b400b800ba00bc00bd00be00bf00c080c000c180c100c280c200c380c3', '0000000000000000000000000000000000000000000000000000000000000000', 2.5, NULL, 'fashion-classifier', '0123456789abcdef', NULL, false);
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000005', 'champion', '2026-11-18 11:06:45+00', '2', 5, 0.625, '{0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.625,0.041625977,0.041625977,0.041625977,0.041625977}', '{5,5.125,5.25,5.375,5.5,5.625,5.75,5.875}', '\x0045c04480444044004480430043804200428041004180400040003f003e003d', '0000000000000000000000000000000000000000000000000000000000000005', 7.5, NULL, 'fashion-classifier', '0123456789abcdef', NULL, false);
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000004', 'shadow', '2026-11-18 11:06:44+00', '3', 7, 0.625, '{0.041625977,0.041625977,0.041625977,0.041625977,0.625,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977}', '{4,4.125,4.25,4.375,4.5,4.625,4.75,4.875}', '\x004480430043804200428041004180400040003f003e003d003c003a00380034', '0000000000000000000000000000000000000000000000000000000000000004', 6.5, NULL, 'fashion-classifier', '0123456789abcdef', NULL, false);
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000006', 'champion', '2026-11-18 11:06:46+00', '2', 6, 0.625, '{0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.625,0.041625977,0.041625977,0.041625977}', '{6,6.125,6.25,6.375,6.5,6.625,6.75,6.875}', '\x0046c045804540450045c0448044404400448043004380420042804100418040', '0000000000000000000000000000000000000000000000000000000000000006', 8.5, 'fashion-check', 'fashion-classifier', '0123456789abcdef', NULL, false);
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000007', 'champion', '2026-11-18 11:06:47+00', '2', 7, 0.625, '{0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.625,0.041625977,0.041625977}', '{7,7.125,7.25,7.375,7.5,7.625,7.75,7.875}', '\x0047c046804640460046c045804540450045c044804440440044804300438042', '0000000000000000000000000000000000000000000000000000000000000007', 9.5, 'a shop', 'fashion-classifier', '0123456789abcdef', NULL, false);
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000001', 'champion', '2026-11-18 11:06:41+00', '1', 1, 0.625, '{0.041625977,0.625,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977}', '{1,1.125,1.25,1.375,1.5,1.625,1.75,1.875}', '\x003c003a00380034000000b400b800ba00bc00bd00be00bf00c080c000c180c1', '0000000000000000000000000000000000000000000000000000000000000001', 3.5, NULL, 'fashion-classifier', '0123456789abcdef', NULL, true);
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000002', 'champion', '2026-11-18 11:06:42+00', '1', 2, 0.625, '{0.041625977,0.041625977,0.625,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977}', '{2,2.125,2.25,2.375,2.5,2.625,2.75,2.875}', '\x0040003f003e003d003c003a00380034000000b400b800ba00bc00bd00be00bf', '0000000000000000000000000000000000000000000000000000000000000002', 4.5, NULL, 'fashion-classifier', '0123456789abcdef', NULL, true);
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000003', 'champion', '2026-11-18 11:06:43+00', '1', 3, 0.625, '{0.041625977,0.041625977,0.041625977,0.625,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977}', '{3,3.125,3.25,3.375,3.5,3.625,3.75,3.875}', '\x00428041004180400040003f003e003d003c003a00380034000000b400b800ba', '0000000000000000000000000000000000000000000000000000000000000003', 5.5, NULL, 'fashion-classifier', '0123456789abcdef', NULL, true);
INSERT INTO prediction_log.predictions VALUES ('019a1b2c-3d4e-7f00-8a00-000000000004', 'champion', '2026-11-18 11:06:44+00', '2', 4, 0.625, '{0.041625977,0.041625977,0.041625977,0.041625977,0.625,0.041625977,0.041625977,0.041625977,0.041625977,0.041625977}', '{4,4.125,4.25,4.375,4.5,4.625,4.75,4.875}', '\x004480430043804200428041004180400040003f003e003d003c003a00380034', '0000000000000000000000000000000000000000000000000000000000000004', 6.5, NULL, 'fashion-classifier', '0123456789abcdef', NULL, true);
INSERT INTO prediction_log.version VALUES (3);
SELECT pg_catalog.setval('prediction_log.decisions_sequence_seq', 3, true);
SELECT pg_catalog.setval('prediction_log.feedback_sequence_seq', 6, true);
ALTER TABLE ONLY prediction_log.decisions
    ADD CONSTRAINT decisions_pkey PRIMARY KEY (sequence);
ALTER TABLE ONLY prediction_log.feedback
    ADD CONSTRAINT feedback_pkey PRIMARY KEY (sequence);
ALTER TABLE ONLY prediction_log.feedback
    ADD CONSTRAINT feedback_prediction_id_time_source_true_label_key UNIQUE (prediction_id, "time", source, true_label);
ALTER TABLE ONLY prediction_log.predictions
    ADD CONSTRAINT predictions_pkey PRIMARY KEY (prediction_id, role);
CREATE INDEX decisions_by_prediction ON prediction_log.decisions USING btree (prediction_id, source);
CREATE INDEX predictions_by_time ON prediction_log.predictions USING btree ("time", prediction_id, role);
CREATE INDEX predictions_expiring ON prediction_log.predictions USING btree (expire_at) WHERE (expire_at IS NOT NULL);
CREATE INDEX predictions_labelled ON prediction_log.predictions USING btree ("time", prediction_id) WHERE labelled;
ALTER TABLE ONLY prediction_log.feedback
    ADD CONSTRAINT feedback_prediction_id_role_fkey FOREIGN KEY (prediction_id, role) REFERENCES prediction_log.predictions(prediction_id, role) ON DELETE CASCADE;
