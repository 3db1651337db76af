"""What is odd about a reading out of a BMC: one word each, kept with the reading.

`REFUSED` words keep a reading out of estimates; the others lower nothing by themselves.
`LOWER_RANK` and `SET_COPY` are no faults: another reading already says the same watts better, so
a sum must pass over them.
"""

# The figure is the supply's rating or another constant of its type plate.
RATING_AS_READING = "rating_as_reading"
# A supply that loses nothing: one figure was copied into both properties.
IN_EQUALS_OUT = "in_equals_out"
# More than the supply can deliver.
ABOVE_CAPACITY = "above_capacity"
# Two energy counters of one thing disagree; this is the one that cannot be right.
COUNTER_CONTRADICTED = "counter_contradicted"
# Excerpts of one document say something else than the Sensors they name.
METRICS_CONTRADICTED = "metrics_contradicted"
REFUSED = frozenset(
    {
        RATING_AS_READING,
        IN_EQUALS_OUT,
        ABOVE_CAPACITY,
        COUNTER_CONTRADICTED,
        METRICS_CONTRADICTED,
    }
)

# Said better by another reading of the same thing: kept, never added.
LOWER_RANK = "lower_rank"
# A set's or a twin's figure for what others of this pass say singly: kept, never added.
SET_COPY = "set_copy"
# Readings that a sum must pass over.
NOT_ADDED = frozenset({LOWER_RANK, SET_COPY})

EXCERPT_DIFFERS = "excerpt_differs"
NUMBER_AS_TEXT = "number_as_text"
FRACTION_MISLABELLED = "fraction_mislabelled"
COUNT_DIFFERS = "count_differs"
OUTPUTS_BELOW_HALF = "outputs_below_half"
STATE_NOT_LISTED = "state_not_listed"
REPORTED_DIFFERS = "reported_differs"
COOLANT_DIFFERS = "coolant_differs"
PRESSURE_REVERSED = "pressure_reversed"
