// tensorforge model import: many registrations from one file.
#include <set>

#include <fmt/format.h>

#include "model_table.h"
#include "pipeline.h"
#include "platform/names.h"
#include "program.h"

namespace tensorforge::cli {
namespace {

constexpr std::size_t kWindow = 256;

struct Import {
  std::uint64_t registered{}, already_registered{}, refused{};
  Sequence sequence{};
  std::string request_id;
};

void count(Context& context, Import& import, const registry::ModelMetadata& model, const client::Answer& answer) {
  if (answer.status.ok()) {
    ++import.registered;
    if (context.out().format() == Format::JsonLines) {
      context.out().object(to_json(Change{answer.reply, answer.request_id}));
      context.out().flush();  // what is printed is done, whatever becomes of us
    }
    import.sequence = answer.reply.sequence;
    import.request_id = answer.request_id;
  } else if (absl::IsAlreadyExists(answer.status)) {
    ++import.already_registered;
  } else {
    const Failure failure = refusal(answer.status);
    if (failure.exit != Exit::Refused) throw failure;
    ++import.refused;
    fmt::print(stderr, "error: {}: {} {}\n", describe(answer.status), names::quoted(model.model_id),
               registry::format_version(model.version));
  }
}

void import_models(Context& context, const std::string& path, const ChangeOptions& options) {
  const Result<std::vector<registry::ModelMetadata>> models = parse_model_table(read_input(path));
  if (!models.ok()) {
    throw wrong_usage(fmt::format("{}: {}", names::quoted(path), std::string(models.status().message())));
  }
  Import import;
  Progress progress("imported", models->size());
  Pipeline pipeline(context.service().client(), kWindow);
  std::set<std::string> begun;
  for (const registry::ModelMetadata& model : *models) {
    // The condition is about what others did: later versions of a model follow a change of our own.
    const bool first_of_model = begun.insert(model.model_id).second;
    pipeline.submit(registry::RegisterModel{model},
                    {first_of_model ? options.if_sequence : std::nullopt, options.reason},
                    [&](const client::Answer& answer) {
                      count(context, import, model, answer);
                      progress.update(import.registered + import.already_registered + import.refused);
                    });
  }
  pipeline.drain();
  progress.clear();
  Json json{{"registered", import.registered},
            {"already_registered", import.already_registered},
            {"refused", import.refused}};
  if (import.registered > 0) {
    json["sequence"] = import.sequence;
    json["request_id"] = import.request_id;
  }
  if (context.out().format() != Format::JsonLines) context.out().object(json);
  if (import.refused > 0) {
    throw Failure{Exit::Refused, absl::FailedPreconditionError(
                                     fmt::format("{} of {} models were refused", import.refused, models->size()))};
  }
}

}  // namespace

void add_model_import(Noun& model) {
  struct Args {
    std::string path;
    ChangeOptions change;
  };
  auto args = std::make_shared<Args>();
  Verb verb = model.verb("import",
                         "Register the versions in a CSV file; those that are there already stay as they are. With "
                         "--jsonl it prints each one as it is acknowledged",
                         "tensorforge model import models.csv");
  verb.text("FILE", args->path,
            "Lines of model_id,version,framework,input_shape,output_shape,size_bytes,accuracy_top1 (it becomes a tag); "
            "# begins a comment")
      ->required();
  verb.change(args->change);
  verb.run([args](Context& context) { import_models(context, args->path, args->change); });
}

}  // namespace tensorforge::cli
