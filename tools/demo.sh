#!/bin/sh
# Traces one real query of one SQLite database twice: once as SQLite reads it by pread64, once through a memory map.
# The closing tables show the same pages of the same file, reached by two roads. Needs root.
set -eu
cd "$(dirname "$0")/.."
flak=.venv/bin/flak
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
database=$folder/weather.db

sqlite3 "$database" "
	create table readings (id integer primary key, station text, payload blob);
	with recursive n(i) as (select 1 union all select i + 1 from n where i < 4001)
	insert into readings select i, 'station ' || (i % 97), randomblob(1000) from n;"
query="select count(*), sum(length(payload)) from readings;"

echo "1. The query with pread64:"
"$flak" trace --summary -e read,fault -- sqlite3 "$database" "pragma mmap_size = 0; $query"
echo
echo "2. The same query through a memory map:"
"$flak" trace --summary -e read,fault -- sqlite3 "$database" "pragma mmap_size = 268435456; $query"
