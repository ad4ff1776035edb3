"""Files from strangers: one row for each way in which they can be bad, one module for each kind of file."""

from bad_inputs import config_rows, dataset_rows, file_rows, gguf_rows, template_rows, tokenizer_rows, weight_rows
from bad_inputs.row import Row

ROWS: list[Row] = [
    row
    for module in (file_rows, config_rows, tokenizer_rows, weight_rows, template_rows, gguf_rows, dataset_rows)
    for row in module.rows()
]
