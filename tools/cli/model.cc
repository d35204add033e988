// tensorforge model: versions of models, their lifecycle and validations.
#include <fmt/format.h>

#include "parse.h"
#include "platform/names.h"
#include "program.h"

namespace tensorforge::cli {
namespace {

using registry::ModelVersion;

const std::vector<Column> kModelColumns{
    {"model_id", "MODEL"},           {"version", "VERSION"}, {"state", "STATE"},
    {"framework", "FRAMEWORK"},      {"size_bytes", "SIZE"}, {"input_shape", "INPUT"},
    {"registered_at", "REGISTERED"}, {"tags", "TAGS"}};

struct OneVersion {
  std::string model_id;
  ModelVersion version;
  ChangeOptions change;
};

void declare_version(Verb& verb, OneVersion& args) {
  verb.text("ID", args.model_id, "The model")->required();
  verb.version("VERSION", args.version, "Its version, MAJOR.MINOR.PATCH")->required();
}

void add_register(Noun& model) {
  struct Args {
    registry::ModelMetadata metadata;
    ChangeOptions change;
  };
  auto args = std::make_shared<Args>();
  registry::ModelMetadata& metadata = args->metadata;
  Verb verb = model.verb("register", "Register a version of a model",
                         "tensorforge model register resnet50 1.0.0 --framework pytorch --input-shape 1x3x224x224 "
                         "--output-shape 1x1000 --size 98MiB --tag task=classification");
  verb.text("ID", metadata.model_id, "The model; / separates namespaces")->required();
  verb.version("VERSION", metadata.version, "Its version, MAJOR.MINOR.PATCH")->required();
  verb.text("--name", metadata.name, "A name for people");
  verb.text("--framework", metadata.framework, "What it runs on");
  verb.value("--input-shape", metadata.input_shape, parse_shape, "Such as 1x3x224x224");
  verb.value("--output-shape", metadata.output_shape, parse_shape, "Such as 1x1000");
  verb.size("--size", metadata.size_bytes, "Size of its weights");
  verb.text("--checksum", metadata.checksum, "Of its weights, such as sha256:...");
  verb.tags("--tag", metadata.tags, "KEY=VALUE; may be given many times");
  verb.change(args->change);
  verb.run([args](Context& context) { context.change(registry::RegisterModel{args->metadata}, args->change); });
}

void add_get(Noun& model) {
  struct Args {
    std::string model_id;
    std::optional<ModelVersion> version;
  };
  auto args = std::make_shared<Args>();
  Verb verb =
      model.verb("get", "Show one version; without VERSION the highest", "tensorforge model get resnet50 1.0.0");
  verb.text("ID", args->model_id, "The model")->required();
  verb.version("VERSION", args->version, "Its version");
  verb.run([args](Context& context) { context.show(query::GetModel{args->model_id, args->version}); });
}

void add_versions(Noun& model) {
  struct Args {
    std::string model_id;
    std::optional<std::uint64_t> limit;
  };
  auto args = std::make_shared<Args>();
  Verb verb = model.verb("versions", "List the versions of a model, ascending", "tensorforge model versions resnet50");
  verb.text("ID", args->model_id, "The model")->required();
  verb.limit(args->limit);
  verb.run([args](Context& context) {
    print_list(context, query::ListVersions{args->model_id, {}}, &result::Versions::versions, args->limit,
               {{"version", "VERSION"}});
  });
}

void add_list(Noun& model) {
  auto limit = std::make_shared<std::optional<std::uint64_t>>();
  Verb verb = model.verb("list", "List every version of every model", "tensorforge --jsonl model list --limit 100");
  verb.limit(*limit);
  verb.run([limit](Context& context) {
    print_list(context, query::ListModels{}, &result::Models::models, *limit, kModelColumns);
  });
}

void add_find(Noun& model) {
  struct Args {
    registry::DeploymentState state{};
    std::optional<std::uint64_t> limit;
  };
  auto args = std::make_shared<Args>();
  Verb verb = model.verb("find", "List the versions in a state", "tensorforge model find Production");
  verb.enumerator("STATE", args->state, "Registered, Validating, Staging, Canary, Production, Deprecated, Archived")
      ->required();
  verb.limit(args->limit);
  verb.run([args](Context& context) {
    print_list(context, query::FindModels{args->state, {}}, &result::Models::models, args->limit, kModelColumns);
  });
}

void add_transition(Noun& model) {
  struct Args : OneVersion {
    registry::DeploymentState to{};
  };
  auto args = std::make_shared<Args>();
  Verb verb = model.verb("transition", "Move a version through its lifecycle",
                         "tensorforge model transition resnet50 1.0.0 Validating --reason 'nightly run'");
  declare_version(verb, *args);
  verb.enumerator("STATE", args->to, "Registered, Validating, Staging, Canary, Production, Deprecated, Archived")
      ->required();
  verb.change(args->change);
  verb.run([args](Context& context) {
    const registry::TransitionState command{args->model_id, args->version, args->to};
    context.change(command, args->change);
  });
}

Result<std::vector<double>> parse_samples(std::string_view text) {
  std::vector<double> samples;
  std::size_t number = 0;
  for (std::string_view line : split(text, '\n')) {
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with('#')) continue;
    const Result<double> sample = parse_real(line);
    if (!sample.ok()) {
      return absl::InvalidArgumentError(fmt::format("line {}: {}; one latency in milliseconds a line", number,
                                                    std::string(sample.status().message())));
    }
    samples.push_back(*sample);
  }
  return samples;
}

void add_validate(Noun& model) {
  struct Args : OneVersion {
    registry::ValidationResult validation;
    std::optional<std::string> samples;
  };
  auto args = std::make_shared<Args>();
  registry::ValidationResult& validation = args->validation;
  Verb verb = model.verb("validate", "Record a validation, from two percentiles or from raw samples",
                         "tensorforge model validate resnet50 1.0.0 --p50 8.1 --p99 12.5 --accuracy 0.761\n"
                         "  tensorforge model validate resnet50 1.0.0 --samples latencies.txt --accuracy 0.761");
  declare_version(verb, *args);
  CLI::Option* p50 = verb.real("--p50", validation.latency_p50_ms, "Median latency, ms");
  CLI::Option* p99 = verb.real("--p99", validation.latency_p99_ms, "99th percentile of latency, ms");
  CLI::Option* samples =
      verb.text("--samples", args->samples, "FILE of latencies in ms, one a line; instead of those two");
  verb.real("--accuracy", validation.accuracy_score, "Accuracy")->required();
  verb.texts("--error", validation.errors, "What went wrong; may be given many times, and the validation fails");
  verb.change(args->change);
  p50->needs(p99)->excludes(samples);
  p99->needs(p50)->excludes(samples);
  verb.run([args, p50](Context& context) {
    if (!args->samples && p50->empty()) throw wrong_usage("either --p50 and --p99 or --samples is required");
    registry::ValidationResult result = args->validation;
    if (args->samples) {
      const Result<std::vector<double>> parsed = parse_samples(read_input(*args->samples));
      if (!parsed.ok()) throw wrong_usage(fmt::format("--samples: {}", std::string(parsed.status().message())));
      result =
          registry::validate_latencies(args->model_id, args->version, *parsed, result.accuracy_score, result.errors);
    }
    result.model_id = args->model_id;
    result.version = args->version;
    if (!args->samples) result.passed = result.errors.empty();
    context.change(registry::RecordValidation{result}, args->change);
  });
}

void add_validation(Noun& model) {
  auto args = std::make_shared<OneVersion>();
  Verb verb = model.verb("validation", "Show the latest validation of a version",
                         "tensorforge model validation resnet50 1.0.0");
  declare_version(verb, *args);
  verb.run([args](Context& context) { context.show(query::GetValidation{args->model_id, args->version}); });
}

void add_compat(Noun& model) {
  struct Args {
    std::pair<std::string, ModelVersion> a, b;
  };
  auto args = std::make_shared<Args>();
  Verb verb = model.verb("compat", "Compare the shapes of two versions: 1 where all are equal",
                         "tensorforge model compat resnet50@1.0.0 resnet50@2.0.0");
  verb.value("A@VERSION", args->a, parse_model_at_version, "One model and version")->required();
  verb.value("B@VERSION", args->b, parse_model_at_version, "The other")->required();
  verb.run([args](Context& context) {
    const query::CompareShapes query{args->a.first, args->a.second, args->b.first, args->b.second};
    context.out().object({{"shape_compatibility", context.service().ask_for<result::Number>(query).value}});
  });
}

void add_sla(Noun& model) {
  struct Args : OneVersion {
    double max_latency_ms{}, min_accuracy{};
  };
  auto args = std::make_shared<Args>();
  Verb verb = model.verb("sla", "Check the latest validation of a version against limits",
                         "tensorforge model sla resnet50 1.0.0 --max-latency 20 --min-accuracy 0.75");
  declare_version(verb, *args);
  verb.real("--max-latency", args->max_latency_ms, "Largest p99 latency, ms")->required();
  verb.real("--min-accuracy", args->min_accuracy, "Smallest accuracy")->required();
  verb.run([args](Context& context) {
    const query::CheckSla query{args->model_id, args->version, args->max_latency_ms, args->min_accuracy};
    const auto verdict = context.service().ask_for<result::Verdict>(query);
    Json json{{"meets_sla", verdict.holds}};
    if (!verdict.problem.empty()) json["problem"] = verdict.problem;
    context.out().object(json);
  });
}

void add_best(Noun& model) {
  auto ids = std::make_shared<std::vector<std::string>>();
  Verb verb = model.verb("best", "Select the best of some models by their versions in Production or Canary",
                         "tensorforge model best resnet50 vit_b_16");
  verb.texts("ID", *ids, "The models")->required();
  verb.run([ids](Context& context) {
    const auto best = context.service().ask_for<result::BestModelFound>(query::BestModel{*ids});
    if (!best.model_id) context.out().line("none of them qualifies: none is in Production or Canary with a validation");
    if (best.model_id || context.out().format() != Format::Text) context.out().object(to_json(ReplyResult(best)));
  });
}

void add_rollback_priority(Noun& model) {
  struct Args {
    std::string model_id;
    ModelVersion current, baseline;
  };
  auto args = std::make_shared<Args>();
  Verb verb = model.verb("rollback-priority", "How urgent it is to go back from one version to another; 0: not at all",
                         "tensorforge model rollback-priority resnet50 2.0.0 1.0.0");
  verb.text("ID", args->model_id, "The model")->required();
  verb.version("CURRENT", args->current, "The version that serves")->required();
  verb.version("BASELINE", args->baseline, "The version to go back to")->required();
  verb.run([args](Context& context) {
    const query::RollbackPriority query{args->model_id, args->current, args->baseline};
    context.out().object({{"rollback_priority", context.service().ask_for<result::Number>(query).value}});
  });
}

}  // namespace

void add_model(CLI::App& app, Program& program) {
  Noun model(app, program, "model", "Models: versions, lifecycle, validations", "tensorforge model list");
  add_register(model);
  add_get(model);
  add_versions(model);
  add_list(model);
  add_find(model);
  add_transition(model);
  add_validate(model);
  add_validation(model);
  add_compat(model);
  add_sla(model);
  add_best(model);
  add_rollback_priority(model);
  add_model_import(model);
}

}  // namespace tensorforge::cli
