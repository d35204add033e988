#pragma once

#include <string_view>
#include <vector>

#include "platform/result.h"
#include "registry/registry.h"

namespace tensorforge::cli {

/// The models of a CSV file with the columns model_id, version, framework, input_shape, output_shape, size_bytes and
/// accuracy_top1, which becomes the tag of that name (none where it is empty). No quoting; `#` begins a comment line.
/// kInvalidArgument: names the line and what is wrong with it.
Result<std::vector<registry::ModelMetadata>> parse_model_table(std::string_view csv);

/// The table that the program carries: tests/data/models.csv.
std::string_view built_in_model_table();

}  // namespace tensorforge::cli
