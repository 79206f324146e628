"""What is kept of people for occasions."""

from alembic import op

revision = "0013"
down_revision = "0012"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"

# Of a person, whatever the business. Those who are members already are asked for by and by.
TABLES = """
create table people (
    tenant_id uuid not null,
    customer_id uuid not null,
    version bigint not null,
    birth_month smallint,
    birth_day smallint,
    time_zone text not null,
    profile_complete boolean not null,
    wanted boolean not null,
    constraint people_pkey primary key (tenant_id, customer_id)
);
create index people_birthday_idx on people (tenant_id, birth_month, birth_day, customer_id)
    where birth_month is not null;
create index people_wanted_idx on people (tenant_id) where wanted;
insert into people (tenant_id, customer_id, version, time_zone, profile_complete, wanted)
select distinct tenant_id, customer_id, 0, '', false, true from memberships
where presence_version < 4611686018427387904;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute("alter table people enable row level security")
    op.execute(f"create policy tenant_wall on people using ({TENANT}) with check ({TENANT})")
