#include "platform/deliberate_bug.h"

#ifdef TENSORFORGE_DELIBERATE_BUGS  // else there is nothing of it

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <iterator>

namespace tensorforge {
namespace {

constexpr std::string_view kNames[] = {
    "reply-before-durable",
    "refusal-before-durable",
    "read-before-durable",
    "sync-skipped",
    "failed-sync-retried",
    "rename-without-directory-sync",
    "new-directory-not-synced",
    "anchor-too-high",
    "no-anchor",
    "tolerate-corrupted-tail",
    "database-created-again",
    "half-a-command",
    "answers-forgotten",
    "snapshot-of-wrong-sequence",
    "replay-off-by-one",
    "apply-with-clock",
    "loss-thrown-away",
    "nothing-repaired",
};
static_assert(std::size(kNames) == kDeliberateBugs);
static_assert(static_cast<std::size_t>(DeliberateBug::kNothingRepaired) + 1 == kDeliberateBugs, "each bug has a name");

/// nullopt: the environment names none, or one that there is not.
std::optional<DeliberateBug> chosen_bug() {
  const char* const name = std::getenv(kDeliberateBugVariable);
  if (name == nullptr) return std::nullopt;
  const auto found = std::find(std::begin(kNames), std::end(kNames), std::string_view(name));
  if (found == std::end(kNames)) return std::nullopt;
  return static_cast<DeliberateBug>(found - std::begin(kNames));
}

}  // namespace

std::array<DeliberateBug, kDeliberateBugs> deliberate_bugs() {
  std::array<DeliberateBug, kDeliberateBugs> all{};
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<DeliberateBug>(i);
  return all;
}

std::string_view to_string(DeliberateBug bug) { return kNames[static_cast<std::size_t>(bug)]; }

bool deliberate_bug(DeliberateBug bug) {
  static const std::optional<DeliberateBug> chosen = chosen_bug();
  return bug == chosen;
}

}  // namespace tensorforge

#endif
