# What `examples/run search-index` does: the three crawls of README.md.

for file in example/events/*.jsonl; do
    crawls=$((${crawls:-0} + 1))
    note "crawl $crawls: $(basename "$file" .jsonl)"
    refit event send --file "$file"
    over "search-index/$crawls"
done

refit run list
refit run show search-index/2
refit run show search-index/3
refit model history search-index
refit event list --type search-index.rebuilt
