// tensorforge server: the service itself.
#include "program.h"

namespace tensorforge::cli {

void add_server(CLI::App& app, Program& program) {
  Noun server(app, program, "server", "The service itself", "tensorforge server status");
  server.verb("status", "How the service is: its log, its digest, what it holds", "tensorforge --json server status")
      .run([](Context& context) { context.show(query::GetStatus{}); });

  server
      .verb("snapshot", "Takes a snapshot of the state now, from which the next start goes on",
            "tensorforge server snapshot")
      .run([](Context& context) {
        context.allow(kLongest);
        context.show(query::TakeSnapshot{});
      });

  auto change = std::make_shared<ChangeOptions>();
  Verb accept_clock = server.verb("accept-clock", "Accept the clock after it leapt, so that changes are taken again",
                                  "tensorforge server accept-clock --reason 'the clock was wrong since March'");
  accept_clock.change(*change);
  accept_clock.run([change](Context& context) { context.change(AcceptClock{}, *change); });
}

}  // namespace tensorforge::cli
