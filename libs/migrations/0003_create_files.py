"""Create the table of sealed files: what lies in the object storage, and under which key.

Run in every service's schema. The worker finds what has expired; only the application's role reaches keys.
"""

from alembic import op
from sqlalchemy import text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE = """
create table files (
    tenant_id uuid not null,
    file_id uuid not null,
    key_id uuid not null,
    purpose text not null,
    size bigint not null,
    digest bytea not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    destroyed_at timestamptz,
    constraint files_pkey primary key (tenant_id, file_id),
    constraint files_size_check check (size >= 0)
);
create index files_digest_idx on files (tenant_id, purpose, digest) where destroyed_at is null;
create index files_expires_at_idx on files (expires_at) where destroyed_at is null;
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    op.execute("set local statement_timeout = '60s'")
    roles = [f"quote_ident(current_setting('regulars.{role}_role'))" for role in ("app", "worker")]
    app, worker = op.get_bind().execute(text(f"select {', '.join(roles)}")).one()
    for statement in TABLE.split(";"):
        if statement.strip():
            op.execute(statement)
    mine = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
    op.execute("alter table files enable row level security")
    op.execute(f"grant select, insert, update, delete on files to {app}")
    op.execute(f"create policy tenant on files to {app} using ({mine}) with check ({mine})")
    op.execute(f"grant select on files to {worker}")
    op.execute(f"create policy worker on files for select to {worker} using (true)")


def downgrade() -> None:
    op.execute("drop table files")
