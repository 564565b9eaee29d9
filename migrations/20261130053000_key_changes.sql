create function notify_key() returns trigger language plpgsql as $$
begin
    perform pg_notify('rehead_key', '');
    return null;
end $$;
comment on function notify_key is
    'Lets servers ask about keys and the limits of tenants again, which they otherwise do once a second.';
create trigger notify_key after insert or update of revoked_at on api_keys
    for each row execute function notify_key();
-- Claims, which change other columns, do not notify.
create trigger notify_limits after update of requests_per_minute on tenants
    for each row execute function notify_key();
