# What `examples/run forecast` does: the three deliveries of README.md.

for file in example/events/*.jsonl; do
    deliveries=$((${deliveries:-0} + 1))
    note "delivery $deliveries: $(basename "$file" .jsonl)"
    refit event send --file "$file"
    over "forecast/$deliveries"
done

refit run list
refit run show forecast/2
refit run show forecast/3
refit model history forecast
