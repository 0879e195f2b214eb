INSERT INTO "alembic_version" VALUES('0052');
CREATE TABLE alert_ends (
    kind TEXT NOT NULL, 
    name TEXT NOT NULL, 
    worker TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    ends TEXT NOT NULL, 
    PRIMARY KEY (kind, name, worker)
);
CREATE TABLE alert_judges (
    name TEXT NOT NULL, 
    owner TEXT NOT NULL, 
    owned_until BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE alert_machines (
    worker TEXT NOT NULL, 
    machine TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    disk_free_ppm BIGINT NOT NULL, 
    is_clock_steady BIGINT NOT NULL, 
    clock_off_us BIGINT, 
    server_ends BIGINT, 
    PRIMARY KEY (worker)
);
CREATE TABLE alert_silences (
    rule TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    until BIGINT NOT NULL, 
    "by" TEXT NOT NULL, 
    reason TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    PRIMARY KEY (rule, subject)
);
CREATE TABLE alerts (
    rule TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    severity TEXT NOT NULL, 
    detail TEXT NOT NULL, 
    count BIGINT NOT NULL, 
    examples TEXT NOT NULL, 
    seen_at BIGINT NOT NULL, 
    raised_at BIGINT, 
    missed_at BIGINT, 
    is_told BIGINT NOT NULL, is_hushed BIGINT DEFAULT '0' NOT NULL, 
    PRIMARY KEY (rule, subject)
);
CREATE TABLE audit (
    chain TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    at BIGINT NOT NULL, 
    actor TEXT NOT NULL, 
    action TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    detail TEXT NOT NULL, 
    digest BLOB NOT NULL, 
    PRIMARY KEY (chain, seq)
);
CREATE TABLE audit_heads (
    chain TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    at BIGINT NOT NULL, 
    digest BLOB NOT NULL, 
    "key" BLOB NOT NULL, 
    signature BLOB NOT NULL, others TEXT, 
    PRIMARY KEY (chain)
);
CREATE TABLE aws_access_keys (
    id TEXT NOT NULL, 
    secret TEXT NOT NULL, 
    name TEXT NOT NULL, 
    created_at BIGINT NOT NULL, policy TEXT, 
    PRIMARY KEY (id)
);
CREATE TABLE aws_authorizers (
    name TEXT NOT NULL, 
    function_arn TEXT NOT NULL, 
    token_key_name TEXT, 
    signing_keys TEXT NOT NULL, 
    active BIGINT NOT NULL, 
    signing_disabled BIGINT NOT NULL, 
    caches_http BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE aws_cas (
    id TEXT NOT NULL, 
    der BLOB NOT NULL, 
    subject BLOB NOT NULL, 
    active BIGINT NOT NULL, 
    mode TEXT NOT NULL, 
    auto_registration BIGINT NOT NULL, 
    registration TEXT, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    customer_version BIGINT NOT NULL, 
    generation_id TEXT NOT NULL, pem TEXT, 
    PRIMARY KEY (id)
);
CREATE TABLE aws_certificates (
    id TEXT NOT NULL, 
    der BLOB NOT NULL, 
    status TEXT NOT NULL, 
    mode TEXT NOT NULL, 
    ca_id TEXT, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    customer_version BIGINT NOT NULL, 
    generation_id TEXT NOT NULL, claim TEXT, until BIGINT, pem TEXT, replaces TEXT, 
    PRIMARY KEY (id)
);
CREATE TABLE aws_defaults (
    kind TEXT NOT NULL, 
    name TEXT NOT NULL, 
    PRIMARY KEY (kind)
);
CREATE TABLE aws_job_executions (
    job_id TEXT NOT NULL, 
    thing TEXT NOT NULL, 
    status TEXT NOT NULL, 
    details TEXT NOT NULL, 
    number BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    forced BIGINT NOT NULL, 
    queued_at BIGINT NOT NULL, 
    started_at BIGINT, 
    updated_at BIGINT NOT NULL, 
    ends_at BIGINT, 
    step_ends_at BIGINT, 
    due_at BIGINT, 
    PRIMARY KEY (job_id, thing)
);
CREATE TABLE aws_job_notices (
    thing TEXT NOT NULL, 
    listed TEXT NOT NULL, 
    next TEXT NOT NULL, 
    owed_at BIGINT, 
    revision BIGINT NOT NULL, 
    PRIMARY KEY (thing)
);
CREATE TABLE aws_job_targets (
    job_id TEXT NOT NULL, 
    target TEXT NOT NULL, 
    reached TEXT NOT NULL, 
    done BIGINT NOT NULL, 
    PRIMARY KEY (job_id, target)
);
CREATE TABLE aws_job_templates (
    template_id TEXT NOT NULL, 
    description TEXT NOT NULL, 
    document TEXT NOT NULL, 
    settings TEXT NOT NULL, 
    created_at BIGINT NOT NULL, source TEXT, 
    PRIMARY KEY (template_id)
);
CREATE TABLE aws_jobs (
    job_id TEXT NOT NULL, 
    document TEXT NOT NULL, 
    description TEXT, 
    settings TEXT NOT NULL, 
    template TEXT, 
    status TEXT NOT NULL, 
    reason_code TEXT, 
    comment TEXT, 
    continuous BIGINT NOT NULL, 
    forced BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, 
    updated_at BIGINT NOT NULL, 
    completed_at BIGINT, 
    rolled BIGINT NOT NULL, 
    rolled_at BIGINT NOT NULL, 
    revision BIGINT NOT NULL, source TEXT, parameters TEXT DEFAULT '{}' NOT NULL, paused_at BIGINT, 
    PRIMARY KEY (job_id)
);
CREATE TABLE aws_owned_certificates (
    certificate_id TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    principal TEXT NOT NULL, 
    client_id TEXT NOT NULL, 
    until BIGINT NOT NULL, 
    PRIMARY KEY (certificate_id)
);
CREATE TABLE aws_policies (
    name TEXT NOT NULL, 
    default_version BIGINT NOT NULL, 
    last_version BIGINT NOT NULL, 
    generation_id TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE aws_policy_targets (
    policy TEXT NOT NULL, 
    target TEXT NOT NULL, 
    PRIMARY KEY (policy, target)
);
CREATE TABLE aws_policy_versions (
    policy TEXT NOT NULL, 
    version BIGINT NOT NULL, 
    document TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    PRIMARY KEY (policy, version)
);
CREATE TABLE aws_queued (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
    client_id TEXT NOT NULL, 
    topic TEXT NOT NULL, 
    payload BLOB NOT NULL
);
CREATE TABLE aws_registration_codes (
    account TEXT NOT NULL, 
    code TEXT NOT NULL, 
    PRIMARY KEY (account)
);
CREATE TABLE aws_role_aliases (
    name TEXT NOT NULL, 
    alias_id TEXT NOT NULL, 
    role_arn TEXT NOT NULL, 
    duration_s BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE aws_rule_destinations (
    id TEXT NOT NULL, 
    url TEXT NOT NULL, 
    status TEXT NOT NULL, 
    reason TEXT NOT NULL, 
    token TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE aws_session_secrets (
    id TEXT NOT NULL, 
    secret TEXT NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE aws_settings (
    name TEXT NOT NULL, 
    value TEXT NOT NULL, 
    revision BIGINT NOT NULL, 
    at BIGINT NOT NULL, 
    made_at BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
INSERT INTO "aws_settings" VALUES('events','{}',0,0,0);
INSERT INTO "aws_settings" VALUES('indexing','{}',0,0,0);
CREATE TABLE aws_shadows (
    thing TEXT NOT NULL, 
    name TEXT NOT NULL, 
    version BIGINT NOT NULL, 
    at BIGINT NOT NULL, 
    revision BIGINT NOT NULL, 
    deleted_at BIGINT, 
    body BLOB NOT NULL, 
    PRIMARY KEY (thing, name)
);
CREATE TABLE aws_streams (
    name TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE aws_tags (
    kind TEXT NOT NULL, 
    name TEXT NOT NULL, 
    tags TEXT NOT NULL, 
    revision BIGINT NOT NULL, 
    PRIMARY KEY (kind, name)
);
CREATE TABLE aws_task_lines (
    task_id TEXT NOT NULL, 
    line BIGINT NOT NULL, 
    done BIGINT NOT NULL, 
    body TEXT NOT NULL, 
    PRIMARY KEY (task_id, line)
);
CREATE TABLE aws_tasks (
    task_id TEXT NOT NULL, 
    body TEXT NOT NULL, 
    bucket TEXT NOT NULL, 
    "key" TEXT NOT NULL, 
    role_arn TEXT NOT NULL, 
    status TEXT NOT NULL, 
    message TEXT NOT NULL, 
    done BIGINT NOT NULL, 
    total BIGINT NOT NULL, 
    succeeded BIGINT NOT NULL, 
    failed BIGINT NOT NULL, 
    link TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    PRIMARY KEY (task_id)
);
CREATE TABLE aws_template_versions (
    template TEXT NOT NULL, 
    version BIGINT NOT NULL, 
    body TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    PRIMARY KEY (template, version)
);
CREATE TABLE aws_templates (
    name TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    description TEXT NOT NULL, 
    enabled BIGINT NOT NULL, 
    role_arn TEXT NOT NULL, 
    hook TEXT, 
    default_version BIGINT NOT NULL, 
    last_version BIGINT NOT NULL, 
    generation_id TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE aws_terms (
    place TEXT NOT NULL, 
    field TEXT NOT NULL, 
    value TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    source TEXT NOT NULL, 
    number BIGINT, 
    PRIMARY KEY (place, field, value, subject)
)
 WITHOUT ROWID;
CREATE TABLE aws_thing_group_lines (
    thing_group TEXT NOT NULL, 
    ancestor TEXT NOT NULL, 
    distance BIGINT NOT NULL, 
    PRIMARY KEY (thing_group, ancestor)
);
CREATE TABLE aws_thing_group_members (
    thing_group TEXT NOT NULL, 
    thing TEXT NOT NULL, joined_at BIGINT DEFAULT '0' NOT NULL, 
    PRIMARY KEY (thing_group, thing)
);
CREATE TABLE aws_thing_groups (
    name TEXT NOT NULL, 
    group_id TEXT NOT NULL, 
    properties TEXT NOT NULL, 
    version BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, parent TEXT, "query" TEXT, 
    PRIMARY KEY (name)
);
CREATE TABLE aws_thing_principals (
    thing TEXT NOT NULL, 
    certificate_id TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    PRIMARY KEY (thing, certificate_id)
);
CREATE TABLE aws_thing_types (
    name TEXT NOT NULL, 
    type_id TEXT NOT NULL, 
    properties TEXT NOT NULL, 
    deprecated_at BIGINT, 
    created_at BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE aws_things (
    name TEXT NOT NULL, 
    thing_id TEXT NOT NULL, 
    type_name TEXT, 
    attributes TEXT NOT NULL, 
    billing_group TEXT, 
    version BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE aws_topic_rules (
    name TEXT NOT NULL, 
    payload TEXT NOT NULL, 
    is_disabled BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    revision BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE ca_anchors_fetched (
    new BLOB NOT NULL, 
    name TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    PRIMARY KEY (new, name)
);
CREATE TABLE ca_certificates (
    thumbprint BLOB NOT NULL, 
    issuer BLOB NOT NULL, 
    serial TEXT NOT NULL, 
    device_id TEXT NOT NULL, 
    key_digest BLOB NOT NULL, 
    profile TEXT NOT NULL, 
    requested_by TEXT NOT NULL, 
    not_after BIGINT NOT NULL, 
    der BLOB NOT NULL, 
    revoked_at BIGINT, 
    revocation_reason TEXT, name TEXT DEFAULT '' NOT NULL, holds_name BIGINT DEFAULT '1' NOT NULL, parent BLOB, registered_at BIGINT, 
    PRIMARY KEY (thumbprint)
);
CREATE TABLE ca_crls (
    issuer BLOB NOT NULL, 
    number BIGINT NOT NULL, 
    made_at BIGINT NOT NULL, 
    next_update BIGINT NOT NULL, 
    der BLOB NOT NULL, revocations BIGINT DEFAULT '0' NOT NULL, covers BIGINT DEFAULT '0' NOT NULL, 
    PRIMARY KEY (issuer)
);
CREATE TABLE ca_keys (
    key_digest BLOB NOT NULL, 
    name TEXT NOT NULL, 
    revoked_at BIGINT, 
    revocation_reason TEXT, 
    PRIMARY KEY (key_digest)
);
CREATE TABLE ca_names (
    name TEXT NOT NULL, 
    version BIGINT NOT NULL, lost_at BIGINT, 
    PRIMARY KEY (name)
);
CREATE TABLE ca_revoked_cas (
    key_digest BLOB NOT NULL, 
    der BLOB NOT NULL, 
    revoked_at BIGINT NOT NULL, subject_digest TEXT, 
    PRIMARY KEY (key_digest)
);
CREATE TABLE ca_rollovers (
    id TEXT NOT NULL, 
    old BLOB NOT NULL, 
    new BLOB NOT NULL, 
    phase TEXT NOT NULL, 
    started_at BIGINT NOT NULL, 
    changed_at BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE dps_authorities (
    scope TEXT NOT NULL, 
    name TEXT NOT NULL, 
    subject_digest TEXT NOT NULL, 
    thumbprint TEXT NOT NULL, 
    der BLOB NOT NULL, 
    verified BIGINT NOT NULL, 
    verification_code TEXT, 
    etag TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    updated_at BIGINT NOT NULL, 
    PRIMARY KEY (scope, name)
);
CREATE TABLE dps_enrollments (
    scope TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    id TEXT NOT NULL, 
    document TEXT NOT NULL, 
    etag TEXT NOT NULL, 
    PRIMARY KEY (scope, kind, id)
);
CREATE TABLE dps_instances (
    id_scope TEXT NOT NULL, 
    name TEXT NOT NULL, 
    host TEXT NOT NULL, 
    hubs TEXT NOT NULL, 
    policies TEXT NOT NULL, tier TEXT, 
    PRIMARY KEY (id_scope), 
    UNIQUE (name)
);
CREATE TABLE dps_registrations (
    scope TEXT NOT NULL, 
    registration_id TEXT NOT NULL, 
    group_id TEXT, 
    device_id TEXT NOT NULL, 
    hub TEXT NOT NULL, 
    substatus TEXT NOT NULL, 
    operation_id TEXT NOT NULL, 
    etag TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    updated_at BIGINT NOT NULL, 
    thumbprint BLOB, common_name TEXT, group_made TEXT, endorsement_key BLOB, storage_root_key BLOB, authentication_key BLOB, issued_key BLOB, issued_by TEXT, issued_at BIGINT, issued_chain TEXT, payload TEXT, 
    PRIMARY KEY (scope, registration_id)
);
CREATE TABLE dps_signers (
    scope TEXT NOT NULL, 
    subject_digest TEXT NOT NULL, 
    group_id TEXT NOT NULL, 
    thumbprint TEXT NOT NULL, 
    der BLOB NOT NULL, 
    PRIMARY KEY (scope, subject_digest, group_id, thumbprint)
);
CREATE TABLE dps_tpm_roots (
    scope TEXT NOT NULL, 
    registration_id TEXT NOT NULL, 
    storage_root_keys TEXT NOT NULL, 
    PRIMARY KEY (scope, registration_id)
);
CREATE TABLE est_authorities (
    thumbprint BLOB NOT NULL, 
    der BLOB NOT NULL, 
    names TEXT NOT NULL, 
    added_at BIGINT NOT NULL, 
    PRIMARY KEY (thumbprint)
);
CREATE TABLE est_bootstrap_cas (
    thumbprint BLOB NOT NULL, 
    der BLOB NOT NULL, 
    any_name INTEGER NOT NULL, 
    added_at BIGINT NOT NULL, 
    PRIMARY KEY (thumbprint)
);
CREATE TABLE est_requests (
    id TEXT NOT NULL, 
    name TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    profile TEXT NOT NULL, 
    address TEXT NOT NULL, 
    csr BLOB NOT NULL, 
    asked_at BIGINT NOT NULL, 
    decided_at BIGINT, 
    is_approved BIGINT, fetched_at BIGINT, 
    PRIMARY KEY (id)
);
CREATE TABLE est_users (
    name TEXT NOT NULL, 
    password_hash TEXT NOT NULL, 
    device_id TEXT, 
    created_at BIGINT NOT NULL, nonce BLOB, expires_at BIGINT, is_one_time BIGINT DEFAULT '0' NOT NULL, used_by BLOB, 
    PRIMARY KEY (name)
);
CREATE TABLE figures (
    name TEXT NOT NULL, 
    place TEXT NOT NULL, 
    state TEXT NOT NULL, 
    since BIGINT NOT NULL, 
    worker TEXT NOT NULL, 
    value BIGINT NOT NULL, 
    PRIMARY KEY (name, place, state, since, worker)
)
 WITHOUT ROWID;
CREATE TABLE hub_authorities (
    hub TEXT NOT NULL, 
    name TEXT NOT NULL, 
    subject_digest TEXT NOT NULL, 
    etag TEXT NOT NULL, 
    der BLOB NOT NULL, 
    verification_code TEXT, 
    verified BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, 
    updated_at BIGINT NOT NULL, 
    PRIMARY KEY (hub, name)
);
CREATE TABLE hub_credentials (
    hub TEXT NOT NULL, 
    device_id TEXT NOT NULL, 
    generation_id TEXT NOT NULL, 
    version TEXT NOT NULL, 
    request_id TEXT, 
    session TEXT, 
    expires_at BIGINT, 
    thumbprint BLOB, 
    key_digest BLOB, 
    issued_at BIGINT, 
    chain TEXT, 
    PRIMARY KEY (hub, device_id)
);
CREATE TABLE hub_devices (
    hub TEXT NOT NULL, 
    device_id TEXT NOT NULL, 
    generation_id TEXT NOT NULL, 
    etag TEXT NOT NULL, 
    enabled BIGINT NOT NULL, 
    status_reason TEXT, 
    auth_type TEXT NOT NULL, 
    primary_thumbprint TEXT, 
    secondary_thumbprint TEXT, 
    primary_key BLOB, 
    secondary_key BLOB, 
    iot_edge BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, 
    updated_at BIGINT NOT NULL, maker TEXT DEFAULT 'operator' NOT NULL, parent_scopes TEXT, 
    PRIMARY KEY (hub, device_id)
);
CREATE TABLE hub_modules (
    hub TEXT NOT NULL, 
    device_id TEXT NOT NULL, 
    module_id TEXT NOT NULL, 
    generation_id TEXT NOT NULL, 
    etag TEXT NOT NULL, 
    auth_type TEXT NOT NULL, 
    managed_by TEXT NOT NULL, 
    primary_thumbprint TEXT, 
    secondary_thumbprint TEXT, 
    primary_key BLOB, 
    secondary_key BLOB, 
    created_at BIGINT NOT NULL, 
    updated_at BIGINT NOT NULL, 
    PRIMARY KEY (hub, device_id, module_id)
);
CREATE TABLE hub_routing (
    hub TEXT NOT NULL, 
    generation TEXT NOT NULL, 
    revision BIGINT NOT NULL, 
    document TEXT NOT NULL, 
    secrets TEXT NOT NULL, 
    modified_at BIGINT NOT NULL, 
    PRIMARY KEY (hub)
);
CREATE TABLE hub_terms (
    place TEXT NOT NULL, 
    path TEXT NOT NULL, 
    value TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    PRIMARY KEY (place, path, value, subject)
)
 WITHOUT ROWID;
CREATE TABLE hub_twins (
    hub TEXT NOT NULL, 
    device_id TEXT NOT NULL, 
    version BIGINT NOT NULL, 
    updated_at BIGINT NOT NULL, 
    body BLOB NOT NULL, unindexed BIGINT DEFAULT '3' NOT NULL, 
    PRIMARY KEY (hub, device_id)
);
CREATE TABLE hubs (
    name TEXT NOT NULL, 
    host TEXT NOT NULL, 
    policies TEXT NOT NULL, tier TEXT, 
    PRIMARY KEY (name), 
    UNIQUE (host)
);
CREATE TABLE inbox (
    space TEXT NOT NULL, 
    client TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    id TEXT NOT NULL, 
    enqueued_at BIGINT NOT NULL, 
    expires_at BIGINT NOT NULL, 
    deliveries BIGINT NOT NULL, 
    lock TEXT, 
    locked_until BIGINT, 
    feedback TEXT NOT NULL, 
    body BLOB NOT NULL, 
    PRIMARY KEY (space, client, seq)
);
CREATE TABLE messages (
    id BIGINT NOT NULL, 
    body BLOB NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE noticed (
    chain TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    PRIMARY KEY (chain)
);
CREATE TABLE notices (
    chain TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    at BIGINT NOT NULL, 
    action TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    detail TEXT NOT NULL, 
    PRIMARY KEY (chain, seq)
);
CREATE TABLE outbox (
    worker TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    kind TEXT NOT NULL, 
    entity TEXT NOT NULL, 
    version BIGINT NOT NULL, 
    body TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    PRIMARY KEY (worker, seq)
)
 WITHOUT ROWID;
CREATE TABLE people_allowances (
    user_name TEXT NOT NULL, 
    remaining BIGINT NOT NULL, 
    until BIGINT NOT NULL, 
    PRIMARY KEY (user_name)
);
CREATE TABLE people_approvals (
    digest TEXT NOT NULL, 
    id TEXT NOT NULL, 
    user_name TEXT NOT NULL, 
    what TEXT NOT NULL, 
    method TEXT NOT NULL, 
    path TEXT NOT NULL, 
    body TEXT NOT NULL, 
    needs TEXT NOT NULL, 
    place TEXT NOT NULL, 
    asked_at BIGINT NOT NULL, 
    ends_at BIGINT NOT NULL, 
    decided_by TEXT, 
    is_approved BIGINT, 
    PRIMARY KEY (digest)
);
CREATE TABLE people_asking (
    digest TEXT NOT NULL, 
    code TEXT NOT NULL, 
    label TEXT NOT NULL, 
    address TEXT NOT NULL, 
    ends_at BIGINT NOT NULL, 
    interval_s BIGINT NOT NULL, 
    asked_at BIGINT NOT NULL, 
    user_name TEXT, 
    let_in_by TEXT, 
    is_agreed BIGINT, 
    PRIMARY KEY (digest)
);
CREATE TABLE people_grants (
    user_name TEXT NOT NULL, 
    role TEXT NOT NULL, 
    place TEXT NOT NULL, 
    PRIMARY KEY (user_name, role, place)
);
CREATE TABLE people_invitations (
    digest TEXT NOT NULL, 
    user_name TEXT NOT NULL, 
    made_by TEXT NOT NULL, 
    ends_at BIGINT NOT NULL, 
    PRIMARY KEY (digest)
);
CREATE TABLE people_links (
    issuer TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    user_name TEXT NOT NULL, 
    provider TEXT NOT NULL, 
    let_in_by TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    PRIMARY KEY (issuer, subject)
);
CREATE TABLE people_once (
    digest TEXT NOT NULL, 
    who TEXT NOT NULL, 
    asked TEXT NOT NULL, 
    began_at BIGINT NOT NULL, 
    ends_at BIGINT NOT NULL, 
    status BIGINT, 
    answer TEXT, 
    PRIMARY KEY (digest)
);
CREATE TABLE people_passwords (
    user_name TEXT NOT NULL, 
    hash TEXT NOT NULL, 
    let_in_by TEXT NOT NULL, 
    changed_at BIGINT NOT NULL, 
    addresses TEXT NOT NULL, 
    PRIMARY KEY (user_name)
);
CREATE TABLE people_sessions (
    id TEXT NOT NULL, 
    user_name TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    how TEXT NOT NULL, 
    address TEXT NOT NULL, 
    agent TEXT NOT NULL, 
    let_in_by TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    used_at BIGINT NOT NULL, 
    ends_at BIGINT NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE people_tokens (
    id TEXT NOT NULL, 
    user_name TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    label TEXT NOT NULL, 
    made_by TEXT NOT NULL, 
    role TEXT, 
    place TEXT, 
    created_at BIGINT NOT NULL, 
    ends_at BIGINT NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE people_users (
    name TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    made_by TEXT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE positions (
    stream TEXT NOT NULL, 
    grp TEXT NOT NULL, 
    partition BIGINT NOT NULL, 
    position BIGINT NOT NULL, 
    PRIMARY KEY (stream, grp, partition)
);
CREATE TABLE queue (
    space TEXT NOT NULL, 
    client TEXT NOT NULL, 
    last BIGINT NOT NULL, 
    count BIGINT NOT NULL, 
    at BIGINT NOT NULL, 
    message BIGINT, 
    body BLOB, 
    PRIMARY KEY (space, client, last)
);
CREATE TABLE refusal_subjects (
    subject TEXT NOT NULL, 
    refusal TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    PRIMARY KEY (subject, refusal)
);
CREATE TABLE refusals (
    id TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    code TEXT NOT NULL, 
    message TEXT NOT NULL, 
    cause TEXT NOT NULL, 
    fix TEXT NOT NULL, 
    address TEXT NOT NULL, 
    facts TEXT NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE retained (
    space TEXT NOT NULL, 
    topic TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    expires_at BIGINT, 
    qos BIGINT NOT NULL, 
    size BIGINT NOT NULL, 
    body BLOB NOT NULL, 
    PRIMARY KEY (space, topic)
);
CREATE TABLE routing_letters (
    id TEXT NOT NULL, 
    lane TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    address TEXT NOT NULL, 
    origin TEXT NOT NULL, 
    problem TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    tries BIGINT NOT NULL, 
    due_at BIGINT NOT NULL, 
    dead_at BIGINT, 
    body BLOB NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE segments (
    stream TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    partition BIGINT NOT NULL, 
    at BIGINT NOT NULL, 
    count BIGINT NOT NULL, 
    upto BIGINT NOT NULL, 
    names BLOB, 
    body BLOB NOT NULL, 
    PRIMARY KEY (stream, seq, partition)
);
CREATE TABLE server_facts (
    name TEXT NOT NULL, 
    value TEXT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE sessions (
    space TEXT NOT NULL, 
    client TEXT NOT NULL, 
    epoch BIGINT NOT NULL, 
    owner TEXT, 
    expires_at BIGINT, 
    expiry_s BIGINT NOT NULL, 
    tail BIGINT NOT NULL, 
    cursor BIGINT NOT NULL, 
    sent BIGINT NOT NULL, 
    will BLOB, 
    will_at BIGINT, seen_at BIGINT, gone TEXT, 
    PRIMARY KEY (space, client)
)
 WITHOUT ROWID;
CREATE TABLE stream_ends (
    stream TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    at BIGINT NOT NULL, 
    upto BIGINT NOT NULL, 
    PRIMARY KEY (stream)
);
CREATE TABLE subscriptions (
    space TEXT NOT NULL, 
    filter TEXT NOT NULL, 
    client TEXT NOT NULL, 
    share TEXT NOT NULL, 
    shape TEXT NOT NULL, 
    qos BIGINT NOT NULL, 
    options BIGINT NOT NULL, 
    PRIMARY KEY (space, filter, client, share)
)
 WITHOUT ROWID;
CREATE TABLE webhook_dead (
    id TEXT NOT NULL, 
    hook TEXT NOT NULL, 
    at BIGINT NOT NULL, 
    count BIGINT NOT NULL, 
    body BLOB NOT NULL, 
    problem TEXT NOT NULL, 
    PRIMARY KEY (id)
);
CREATE TABLE webhooks (
    name TEXT NOT NULL, 
    url TEXT NOT NULL, 
    types TEXT NOT NULL, 
    secret TEXT NOT NULL, 
    former TEXT NOT NULL, 
    places TEXT NOT NULL, 
    created_at BIGINT NOT NULL, 
    is_paused BIGINT NOT NULL, 
    tries BIGINT NOT NULL, 
    next_at BIGINT NOT NULL, 
    failed_since BIGINT, 
    problem TEXT NOT NULL, 
    owner TEXT NOT NULL, 
    owned_until BIGINT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE words (
    place TEXT NOT NULL, 
    word TEXT NOT NULL, 
    name TEXT NOT NULL, 
    PRIMARY KEY (place, word, name)
)
 WITHOUT ROWID;
CREATE TABLE workers (
    id TEXT NOT NULL, 
    beat BIGINT NOT NULL, missed BIGINT DEFAULT '0' NOT NULL, heard BIGINT DEFAULT '0' NOT NULL, 
    PRIMARY KEY (id)
);
CREATE INDEX aws_cas_subject ON aws_cas (subject);
CREATE INDEX aws_certificates_ca ON aws_certificates (ca_id, created_at, id);
CREATE INDEX aws_certificates_created ON aws_certificates (created_at, id);
CREATE INDEX aws_queued_client ON aws_queued (client_id, seq);
CREATE INDEX aws_thing_principals_certificate ON aws_thing_principals (certificate_id, thing);
CREATE INDEX ca_certificates_revoked ON ca_certificates (issuer, revoked_at);
CREATE INDEX dps_authorities_subject ON dps_authorities (scope, subject_digest);
CREATE INDEX dps_registrations_group ON dps_registrations (scope, group_id);
CREATE INDEX dps_signers_group ON dps_signers (scope, group_id);
CREATE INDEX refusal_subjects_at ON refusal_subjects (at);
CREATE INDEX refusals_at ON refusals (at);
CREATE INDEX ca_certificates_name ON ca_certificates (name, not_after);
CREATE INDEX sessions_expires_at ON sessions (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX sessions_will_at ON sessions (will_at) WHERE will_at IS NOT NULL;
CREATE INDEX sessions_owner ON sessions (owner) WHERE owner IS NOT NULL;
CREATE INDEX subscriptions_client ON subscriptions (space, client);
CREATE INDEX queue_message ON queue (message) WHERE message IS NOT NULL;
CREATE INDEX inbox_expires_at ON inbox (expires_at);
CREATE INDEX aws_shadows_deleted_at ON aws_shadows (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX segments_names ON segments (stream, partition, seq) WHERE names IS NOT NULL;
CREATE INDEX est_requests_name ON est_requests (name);
CREATE INDEX est_requests_asked_at ON est_requests (asked_at);
CREATE INDEX ca_certificates_end ON ca_certificates (not_after, thumbprint);
CREATE INDEX ca_certificates_profile_end ON ca_certificates (profile, not_after, thumbprint);
CREATE INDEX ca_certificates_issuer_end ON ca_certificates (issuer, not_after, thumbprint);
CREATE INDEX ca_certificates_revoked_end ON ca_certificates (not_after, thumbprint) WHERE revoked_at IS NOT NULL;
CREATE INDEX aws_thing_group_members_thing ON aws_thing_group_members (thing, thing_group);
CREATE INDEX refusal_subjects_refusal ON refusal_subjects (refusal);
CREATE INDEX ca_revoked_cas_subject ON ca_revoked_cas (subject_digest);
CREATE INDEX est_requests_decided_at ON est_requests (decided_at, actor);
CREATE INDEX est_requests_fetched_at ON est_requests (fetched_at);
CREATE INDEX ca_keys_name ON ca_keys (name, revoked_at);
CREATE UNIQUE INDEX ca_certificates_serial ON ca_certificates (serial, issuer);
CREATE INDEX ca_certificates_key ON ca_certificates (key_digest, revoked_at, not_after);
CREATE INDEX ca_certificates_parent ON ca_certificates (parent, name, revoked_at, not_after);
CREATE INDEX ca_certificates_live ON ca_certificates (name, not_after, thumbprint, profile) WHERE revoked_at IS NULL;
CREATE INDEX ca_certificates_taken_back ON ca_certificates (name, revoked_at, revocation_reason) WHERE revoked_at IS NOT NULL;
CREATE INDEX ca_certificates_registered ON ca_certificates (parent, name, not_after) WHERE registered_at IS NOT NULL;
CREATE INDEX retained_expires_at ON retained (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX people_tokens_user ON people_tokens (user_name);
CREATE INDEX people_approvals_id ON people_approvals (id);
CREATE INDEX people_invitations_user ON people_invitations (user_name);
CREATE INDEX webhook_dead_hook ON webhook_dead (hook, at);
CREATE INDEX people_links_user ON people_links (user_name);
CREATE INDEX people_sessions_user ON people_sessions (user_name);
CREATE UNIQUE INDEX people_asking_code ON people_asking (code);
CREATE INDEX people_once_who ON people_once (who);
CREATE INDEX people_once_ends ON people_once (ends_at);
CREATE INDEX notices_at ON notices (at);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_actor ON audit (actor, at);
CREATE INDEX audit_action ON audit (action, at);
CREATE INDEX audit_subject ON audit (subject, at);
CREATE INDEX refusals_code ON refusals (code, at);
CREATE INDEX refusal_subjects_about ON refusal_subjects (subject, at);
CREATE INDEX hub_devices_off ON hub_devices (hub, device_id) WHERE enabled = 0;
CREATE INDEX notices_subject ON notices (subject, at);
CREATE UNIQUE INDEX aws_owned_certificates_digest ON aws_owned_certificates (digest);
CREATE INDEX aws_owned_certificates_principal ON aws_owned_certificates (principal, until);
CREATE INDEX aws_tasks_status ON aws_tasks (status, task_id);
CREATE INDEX aws_certificates_until ON aws_certificates (until) WHERE until IS NOT NULL;
CREATE INDEX aws_thing_groups_parent ON aws_thing_groups (parent, name);
CREATE INDEX aws_thing_group_lines_below ON aws_thing_group_lines (ancestor, thing_group);
CREATE INDEX aws_policy_targets_target ON aws_policy_targets (target, policy);
CREATE INDEX aws_terms_subject ON aws_terms (subject, place, source);
CREATE INDEX aws_terms_number ON aws_terms (place, field, number, subject) WHERE number IS NOT NULL;
CREATE INDEX hub_twins_unindexed ON hub_twins (unindexed, hub, device_id) WHERE unindexed > 0;
CREATE INDEX hub_devices_edge ON hub_devices (hub, device_id) WHERE iot_edge = 1;
CREATE INDEX hub_terms_subject ON hub_terms (subject, place);
CREATE INDEX hub_authorities_subject ON hub_authorities (hub, subject_digest);
CREATE INDEX aws_jobs_status ON aws_jobs (status, job_id);
CREATE INDEX aws_job_executions_status ON aws_job_executions (job_id, status, thing);
CREATE INDEX aws_job_executions_thing ON aws_job_executions (thing, status, queued_at, job_id);
CREATE INDEX aws_job_executions_due ON aws_job_executions (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX aws_job_notices_owed ON aws_job_notices (owed_at) WHERE owed_at IS NOT NULL;
CREATE INDEX routing_letters_lane ON routing_letters (lane, id);
CREATE INDEX routing_letters_due ON routing_letters (due_at) WHERE dead_at IS NULL;
CREATE INDEX ca_names_lost ON ca_names (name) WHERE lost_at IS NOT NULL;
DELETE FROM "sqlite_sequence";
