// tensorforge: everything that a person or a script does with the service.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include "crashtest/tester.h"
#include "platform/names.h"
#include "program.h"
#include "storage/data_directory.h"

namespace tensorforge::cli {
namespace {

constexpr const char* kDescription =
    "tensorforge: the command line of TensorForge, the durable control plane of a machine-learning platform";
constexpr const char* kFooter =
    "Example:\n"
    "  tensorforge model register resnet50 1.0.0 --framework pytorch --input-shape 1x3x224x224 --size 98MiB\n"
    "  tensorforge --json model get resnet50\n\n"
    "Sizes are bytes, or take KiB, MiB, GiB, TiB. A FILE of - is standard input.\n"
    "Exit codes: 0 done, 1 refused by the service, 2 wrong usage, 3 no connection or no answer, 4 verification "
    "failed,\n"
    "5 crashtest found a loss.";

/// The login name where it can stand in the log.
std::string default_actor() {
  for (const char* variable : {"USER", "LOGNAME"}) {
    const char* name = std::getenv(variable);
    if (name != nullptr && names::check_id("actor", name).ok()) return name;
  }
  return "anonymous";
}

void declare(CLI::App& app, Program& program) {
  program.globals.actor = default_actor();
  app.add_option("--server", program.globals.server, "Where the service listens; default 127.0.0.1:7411")
      ->envname("TENSORFORGE_SERVER")
      ->type_name("HOST:PORT");
  app.add_option("--actor", program.globals.actor, "Who asks, for the audit log; default: the login name")
      ->envname("TENSORFORGE_ACTOR")
      ->type_name("ID");
  app.add_flag("--json", program.globals.json, "Print one JSON document");
  app.add_flag("--jsonl", program.globals.json_lines, "Print JSON Lines: one object a line");
  app.set_version_flag("--version", "tensorforge " TENSORFORGE_VERSION);
  app.footer(kFooter);
  app.require_subcommand(1)->fallthrough();
  add_model(app, program);
  add_pool(app, program);
  add_checkpoint(app, program);
  add_log(app, program);
  add_server(app, program);
  add_bench(app, program);
  add_crashtest(app, program);
}

/// "tensorforge model get", as far as the line was understood.
const CLI::App& deepest(const CLI::App& app, std::string& path) {
  for (const CLI::App* next : app.get_subcommands()) {
    path += " " + next->get_name();
    return deepest(*next, path);
  }
  return app;
}

std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  std::string path = "tensorforge";
  const CLI::App& last = deepest(app, path);
  const std::vector<const CLI::App*> choices = last.get_subcommands([](const CLI::App*) { return true; });
  std::string message = error.what();
  std::replace(message.begin(), message.end(), '\n', ' ');
  if (!choices.empty()) {
    std::vector<std::string> choice_names;
    choice_names.reserve(choices.size());
    for (const CLI::App* choice : choices) choice_names.push_back(choice->get_name());
    const std::vector<std::string> unknown = app.remaining(true);
    message = unknown.empty() ? fmt::format("{} needs one of: {}", path, fmt::join(choice_names, ", "))
                              : fmt::format("{} is unknown after {}: use one of {}", names::quoted(unknown.front()),
                                            path, fmt::join(choice_names, ", "));
  }
  return fmt::format("{} (see {} --help)", message, path);
}

int fail(const Failure& failure) {
  fmt::print(stderr, "error: {}\n", describe(failure.status));
  return static_cast<int>(failure.exit);
}

int run(int argc, char** argv) {
  CLI::App app(kDescription, "tensorforge");
  Program program;
  declare(app, program);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail(wrong_usage(usage_message(app, error)));
  }
  Context context(program.globals, std::cout);
  try {
    program.action(context);
    context.out().flush();
  } catch (const Failure& failure) {
    context.out().flush();
    return fail(failure);
  }
  return std::cout ? 0 : fail({Exit::Refused, absl::UnknownError("cannot write to standard output")});
}

}  // namespace
}  // namespace tensorforge::cli

int main(int argc, char** argv) {
  if (const std::optional<int> code = tensorforge::storage::run_log_check_if_asked(argc, argv)) return *code;
  if (const std::optional<int> code = tensorforge::crashtest::run_crash_worker_if_asked(argc, argv)) return *code;
  try {
    return tensorforge::cli::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: INTERNAL: {}\n", error.what());
    return static_cast<int>(tensorforge::cli::Exit::Refused);
  }
}
