import { sql } from "kysely";
import type { Migration } from "../../postgres/migration.ts";

/**
 * Topics, partitions, events and consumer groups, behind functions.
 *
 * Offsets have no holes: `append` holds the partition's row until it commits,
 * so offsets are given out in the order of commit. Whoever follows a partition
 * by offset can therefore not miss one that becomes visible late.
 */
export const migration: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table topic (
      name text primary key,
      partitions int not null check (partitions between 1 and 1000)
    )`.execute(db);
    await sql`create table partition (
      topic text not null references topic,
      partition int not null,
      next_offset bigint not null default 0,
      primary key (topic, partition)
    )`.execute(db);
    await sql`create table event (
      topic text not null,
      partition int not null,
      "offset" bigint not null,
      key text not null,
      headers jsonb not null,
      value bytea not null,
      published_at timestamptz not null default clock_timestamp(),
      primary key (topic, partition, "offset")
    )`.execute(db);
    await sql`create table member (
      "group" text not null,
      topic text not null references topic,
      id text not null,
      lease_until timestamptz not null,
      primary key ("group", topic, id)
    )`.execute(db);
    await sql`create table position (
      "group" text not null,
      topic text not null,
      partition int not null,
      next_offset bigint not null default 0,
      member text,
      epoch bigint not null default 0,
      lease_until timestamptz,
      primary key ("group", topic, partition),
      foreign key (topic, partition) references partition
    )`.execute(db);

    await sql`create function ensure_topic(the_name text, the_partitions int) returns void
      language plpgsql security definer set search_path = bus, pg_temp as $$
    begin
      insert into topic values (the_name, the_partitions) on conflict do nothing;
      if (select partitions from topic where name = the_name) <> the_partitions then
        raise 'topic % has another number of partitions', the_name;
      end if;
      insert into partition (topic, partition)
        select the_name, p from generate_series(0, the_partitions - 1) p on conflict do nothing;
    end $$`.execute(db);

    // Partitions are locked in one order by everybody, so appenders do not deadlock.
    await sql`create function append(topics text[], partitions int[], keys text[], the_headers text[], the_values bytea[])
      returns void language plpgsql security definer set search_path = bus, pg_temp as $$
    declare
      added int;
    begin
      perform from partition
        where (topic, partition) in (select * from unnest(topics, partitions))
        order by topic, partition for update;
      insert into event (topic, partition, "offset", key, headers, value)
        select e.t, e.p, q.next_offset + row_number() over (partition by e.t, e.p order by e.i) - 1,
               e.k, e.h::jsonb, e.v
        from unnest(topics, partitions, keys, the_headers, the_values) with ordinality e(t, p, k, h, v, i)
        join partition q on q.topic = e.t and q.partition = e.p;
      get diagnostics added = row_count;
      if added <> cardinality(topics) then
        raise 'unknown topic or partition';
      end if;
      update partition q set next_offset = q.next_offset + e.added
        from (select t, p, count(*) as added from unnest(topics, partitions) e(t, p) group by t, p) e
        where q.topic = e.t and q.partition = e.p;
      perform pg_notify('bus', t) from (select distinct unnest(topics) as t) e;
    end $$`.execute(db);

    // Renews a member's lease and those of its partitions, and hands out what is free up to its fair share.
    // A member that holds more than its share is told the share, and gives partitions back when it has
    // stopped working on them: nobody else may begin before that.
    await sql`create function join_group(the_group text, the_topic text, the_member text, lease_ms int)
      returns table (share int, partition int, epoch bigint)
      language plpgsql security definer set search_path = bus, pg_temp as $$
    declare
      until timestamptz;
      total int;
      members int;
      rank int;
      the_share int;
      held int;
    begin
      perform pg_advisory_xact_lock(hashtextextended('bus ' || the_group || ' ' || the_topic, 0));
      until := clock_timestamp() + make_interval(secs => lease_ms / 1000.0);
      delete from member m where m."group" = the_group and m.topic = the_topic and m.lease_until < clock_timestamp();
      insert into member values (the_group, the_topic, the_member, until)
        on conflict ("group", topic, id) do update set lease_until = excluded.lease_until;
      insert into position ("group", topic, partition)
        select the_group, q.topic, q.partition from partition q where q.topic = the_topic on conflict do nothing;
      select count(*) into total from position s where s."group" = the_group and s.topic = the_topic;
      select count(*), count(*) filter (where m.id < the_member) into members, rank
        from member m where m."group" = the_group and m.topic = the_topic;
      the_share := total / members + case when rank < total % members then 1 else 0 end;
      update position s set lease_until = until
        where s."group" = the_group and s.topic = the_topic and s.member = the_member
          and s.lease_until > clock_timestamp();
      select count(*) into held from position s
        where s."group" = the_group and s.topic = the_topic and s.member = the_member
          and s.lease_until > clock_timestamp();
      update position s set member = the_member, epoch = s.epoch + 1, lease_until = until
        where s."group" = the_group and s.topic = the_topic and s.partition in (
          select free.partition from position free
            where free."group" = the_group and free.topic = the_topic
              and (free.member is null or free.lease_until <= clock_timestamp())
            order by free.partition limit greatest(the_share - held, 0));
      return query
        select the_share, s.partition, s.epoch from position s
          where s."group" = the_group and s.topic = the_topic and s.member = the_member
            and s.lease_until > clock_timestamp()
          order by s.partition;
      if not found then
        return query select the_share, null::int, null::bigint;
      end if;
    end $$`.execute(db);

    // At most max_events, and at most max_bytes of values unless the first event alone is larger.
    await sql`create function read_events(the_group text, the_topic text, the_partition int, the_member text,
        the_epoch bigint, max_events int, max_bytes int)
      returns table ("offset" bigint, key text, headers jsonb, value bytea, published_at timestamptz)
      language sql stable security definer set search_path = bus, pg_temp as $$
      select e."offset", e.key, e.headers, e.value, e.published_at from (
        select e.*, sum(octet_length(e.value)) over (order by e."offset") as bytes,
               row_number() over (order by e."offset") as nth
          from position s join lateral (
            select * from event e
              where e.topic = s.topic and e.partition = s.partition and e."offset" >= s.next_offset
              order by e."offset" limit max_events) e on true
          where s."group" = the_group and s.topic = the_topic and s.partition = the_partition
            and s.member = the_member and s.epoch = the_epoch
      ) e where e.nth = 1 or e.bytes <= max_bytes
      order by e."offset"
    $$`.execute(db);

    // False if the partition belongs to somebody else by now.
    await sql`create function commit_offset(the_group text, the_topic text, the_partition int, the_member text,
        the_epoch bigint, the_next_offset bigint) returns boolean
      language sql security definer set search_path = bus, pg_temp as $$
      with changed as (
        update position s set next_offset = the_next_offset
          where s."group" = the_group and s.topic = the_topic and s.partition = the_partition
            and s.member = the_member and s.epoch = the_epoch and s.lease_until > clock_timestamp()
            and s.next_offset <= the_next_offset
          returning 1)
      select exists (select from changed)
    $$`.execute(db);

    await sql`create function release_partition(the_group text, the_topic text, the_partition int, the_member text,
        the_epoch bigint) returns void
      language sql security definer set search_path = bus, pg_temp as $$
      update position s set member = null, lease_until = null
        where s."group" = the_group and s.topic = the_topic and s.partition = the_partition
          and s.member = the_member and s.epoch = the_epoch
    $$`.execute(db);

    await sql`create function leave_group(the_group text, the_topic text, the_member text) returns void
      language sql security definer set search_path = bus, pg_temp as $$
      delete from member m where m."group" = the_group and m.topic = the_topic and m.id = the_member
    $$`.execute(db);

    await sql`create function group_lag(the_group text, the_topic text) returns bigint
      language sql stable security definer set search_path = bus, pg_temp as $$
      select coalesce(sum(q.next_offset - coalesce(s.next_offset, 0)), 0)::bigint
        from partition q
        left join position s on s."group" = the_group and s.topic = q.topic and s.partition = q.partition
        where q.topic = the_topic
    $$`.execute(db);

    // What every group has acknowledged goes after keep_days; what some group has not, never.
    await sql`create function prune(keep_days int, max_events int) returns bigint
      language sql security definer set search_path = bus, pg_temp as $$
      with doomed as (
        select q.topic, q.partition, e."offset" from partition q cross join lateral (
          select e."offset", e.published_at from event e
            where e.topic = q.topic and e.partition = q.partition and e."offset" < coalesce((
              select min(s.next_offset) from position s where s.topic = q.topic and s.partition = q.partition
            ), q.next_offset)
            order by e."offset" limit max_events) e
          where e.published_at < clock_timestamp() - make_interval(days => keep_days)
          limit max_events),
      removed as (
        delete from event e using doomed d
          where e.topic = d.topic and e.partition = d.partition and e."offset" = d."offset" returning 1)
      select count(*) from removed
    $$`.execute(db);

    // The tables are nobody's: all that the roles may do is call the functions.
    await sql`revoke all on all tables in schema bus from cadre_bus_app, cadre_bus_engine`.execute(db);
  },
  down: async (db) => {
    await sql`drop function prune, group_lag, leave_group, release_partition, commit_offset, read_events, join_group, append,
      ensure_topic`.execute(db);
    await sql`drop table position, member, event, partition, topic`.execute(db);
  },
};
