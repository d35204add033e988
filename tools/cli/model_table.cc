#include "model_table.h"

#include <fmt/format.h>

#include "built_in_model_table.h"
#include "parse.h"

namespace tensorforge::cli {
namespace {

Result<registry::ModelMetadata> parse_row(const CsvLine& line) {
  constexpr std::size_t kColumns = 7;
  if (line.fields.size() != kColumns) {
    return absl::InvalidArgumentError(
        fmt::format("{} fields where {} belong: model_id,version,framework,input_shape,output_shape,size_bytes,"
                    "accuracy_top1",
                    line.fields.size(), kColumns));
  }
  const Result<registry::ModelVersion> version = parse_model_version(line.fields[1]);
  if (!version.ok()) return version.status();
  Result<std::vector<std::size_t>> input_shape = parse_shape(line.fields[3]);
  if (!input_shape.ok()) return input_shape.status();
  Result<std::vector<std::size_t>> output_shape = parse_shape(line.fields[4]);
  if (!output_shape.ok()) return output_shape.status();
  const Result<std::uint64_t> size_bytes = parse_size(line.fields[5]);
  if (!size_bytes.ok()) return size_bytes.status();
  registry::ModelMetadata model;
  model.model_id = line.fields[0];
  model.version = *version;
  model.framework = line.fields[2];
  model.input_shape = *std::move(input_shape);
  model.output_shape = *std::move(output_shape);
  model.size_bytes = *size_bytes;
  const std::string& accuracy = line.fields[6];
  if (accuracy.empty()) return model;
  if (const Result<double> number = parse_real(accuracy); !number.ok()) return number.status();
  model.tags["accuracy_top1"] = accuracy;
  return model;
}

}  // namespace

Result<std::vector<registry::ModelMetadata>> parse_model_table(std::string_view csv) {
  std::vector<registry::ModelMetadata> models;
  for (const CsvLine& line : parse_csv(csv)) {
    Result<registry::ModelMetadata> model = parse_row(line);
    if (!model.ok()) {
      return absl::InvalidArgumentError(fmt::format("line {}: {}", line.number, std::string(model.status().message())));
    }
    models.push_back(*std::move(model));
  }
  return models;
}

std::string_view built_in_model_table() { return kBuiltInModelTable; }

}  // namespace tensorforge::cli
