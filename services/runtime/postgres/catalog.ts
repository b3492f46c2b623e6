import type pg from "pg";

const own = "schema_migration";

/**
 * Describes what a schema consists of: tables, columns, constraints, indexes,
 * policies, functions, triggers, views, sequences, types and rights, one line
 * each, sorted. Two schemas with the same lines behave the same. Leaves out
 * the migrator's own table. The connection's search path must be the schema.
 */
export async function describeCatalog(client: pg.Client, schema: string): Promise<readonly string[]> {
  const { rows } = await client.query<{ line: string }>(
    `with
      namespace as (select oid from pg_namespace where nspname = $1),
      relation as (
        select c.* from pg_class c join namespace n on c.relnamespace = n.oid where c.relname <> $2
      )
    select format('table %s kind=%s rls=%s forced=%s options=%s rights=%s', c.relname, c.relkind, c.relrowsecurity,
                  c.relforcerowsecurity, c.reloptions, array(select unnest(c.relacl)::text order by 1)) as line
      from relation c where c.relkind in ('r', 'p', 'v', 'm', 'S')
    union all
    select format('column %s.%s %s null=%s default=%s generated=%s identity=%s collation=%s', c.relname, a.attname,
                  format_type(a.atttypid, a.atttypmod), not a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
                  a.attgenerated, a.attidentity, a.attcollation::regcollation)
      from relation c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
      where c.relkind in ('r', 'p', 'v', 'm', 'c')
    union all
    select format('constraint %s.%s %s valid=%s', c.relname, k.conname, pg_get_constraintdef(k.oid), k.convalidated)
      from relation c join pg_constraint k on k.conrelid = c.oid
      where k.contype <> 'n' -- told with the column; versions before 18 do not list them
    union all
    select format('index %s valid=%s', pg_get_indexdef(c.oid), i.indisvalid)
      from relation c join pg_index i on i.indexrelid = c.oid
      where (select relname from pg_class where oid = i.indrelid) <> $2
    union all
    select format('policy %s.%s %s permissive=%s to=%s using=%s check=%s', c.relname, p.polname, p.polcmd,
                  p.polpermissive, array(select pg_get_userbyid(unnest(p.polroles))::text order by 1),
                  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
      from relation c join pg_policy p on p.polrelid = c.oid
    union all
    select format('trigger %s.%s %s enabled=%s', c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled)
      from relation c join pg_trigger t on t.tgrelid = c.oid where not t.tgisinternal
    union all
    select format('view %s %s', c.relname, md5(pg_get_viewdef(c.oid))) from relation c where c.relkind in ('v', 'm')
    union all
    select format('function %s(%s) %s rights=%s', p.proname, pg_get_function_identity_arguments(p.oid),
                  md5(pg_get_functiondef(p.oid)), array(select unnest(p.proacl)::text order by 1))
      from pg_proc p join namespace n on p.pronamespace = n.oid where p.prokind in ('f', 'p')
    union all
    select format('type %s %s', t.typname, array(select e.enumlabel::text from pg_enum e where e.enumtypid = t.oid
                                                 order by e.enumsortorder))
      from pg_type t join namespace n on t.typnamespace = n.oid where t.typtype in ('e', 'd', 'r')
    union all
    select format('sequence %s %s start=%s step=%s min=%s max=%s cycle=%s', c.relname, format_type(s.seqtypid, null),
                  s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle)
      from relation c join pg_sequence s on s.seqrelid = c.oid
    order by line`,
    [schema, own],
  );
  return rows.map((row) => row.line).sort();
}
