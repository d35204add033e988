// What a power cut leaves: one of the images that a disk and a file system may legally leave, by chance.
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "crashtest/simulated_disk.h"
#include "crashtest/simulated_disk_node.h"

namespace tensorforge::crashtest {
namespace {

using Random = std::mt19937_64;

constexpr std::size_t kSector = 512, kPage = 4'096;

std::uint64_t below(Random& random, std::uint64_t limit) { return limit == 0 ? 0 : random() % limit; }
bool chance(Random& random, unsigned percent) { return below(random, 100) < percent; }

/// What became of the bytes of one file that were not synced.
enum class Leaves { kNothing, kAll, kPrefix, kTornWrite, kSectors, kPages, kZeros, kGarbage };
constexpr std::uint64_t kWaysToLeave = 8;

/// What became of the names that were not synced.
enum class Names { kNone, kAll, kPrefix, kSome };
constexpr std::uint64_t kWaysOfNames = 4;

}  // namespace

class SimulatedDisk::Image {
 public:
  Image(Random& random, const std::vector<NameChange>& pending) : random_(random) {
    one_way_ = chance(random_, 50);
    leaves_ = static_cast<Leaves>(below(random_, kWaysToLeave));
    choose_names(pending);
  }

  /// The file or directory as it is found.
  NodePtr of(const NodePtr& from) {
    const auto [known, added] = found_.try_emplace(from.get());
    if (!added) return known->second;
    NodePtr to = std::make_shared<Node>();
    known->second = to;
    to->is_directory = from->is_directory;
    if (from->is_directory) {
      for (const auto& [name, node] : names_of(from)) to->entries[name] = of(node);
      to->durable_entries = to->entries;
    } else {
      to->durable = to->bytes = bytes_of(*from);
    }
    return to;
  }

 private:
  void choose_names(const std::vector<NameChange>& pending) {
    const auto way = static_cast<Names>(below(random_, kWaysOfNames));
    const std::uint64_t prefix = below(random_, pending.size() + 1);
    const auto percent = static_cast<unsigned>(10 + below(random_, 81));
    for (std::size_t i = 0; i < pending.size(); ++i) {
      const bool kept = way == Names::kAll || (way == Names::kPrefix && i < prefix) ||
                        (way == Names::kSome && chance(random_, percent));
      if (!kept) continue;
      for (const NameChange::Edit& edit : pending[i].edits) edits_[edit.directory.get()].push_back(edit);
    }
  }

  Entries names_of(const NodePtr& directory) const {
    Entries names = directory->durable_entries;
    const auto edits = edits_.find(directory.get());
    if (edits == edits_.end()) return names;
    for (const NameChange::Edit& edit : edits->second) {
      if (edit.node) {
        names[edit.name] = edit.node;
      } else {
        names.erase(edit.name);
      }
    }
    return names;
  }

  std::string bytes_of(const Node& file) {
    std::vector<Node::Extent> extents = file.given_up;
    extents.insert(extents.end(), file.unsynced.begin(), file.unsynced.end());
    if (extents.empty()) return file.durable;
    const Leaves leaves = one_way_ ? leaves_ : static_cast<Leaves>(below(random_, kWaysToLeave));
    switch (leaves) {
      case Leaves::kNothing:
        return file.durable;
      case Leaves::kAll:
        return prefix(file, extents, extents.size(), 0);
      case Leaves::kPrefix: {
        const std::size_t whole = below(random_, extents.size());
        return prefix(file, extents, whole, below(random_, extents[whole].size + 1));
      }
      case Leaves::kTornWrite: {
        const std::size_t whole = below(random_, extents.size());
        const Node::Extent& torn = extents[whole];
        const std::uint64_t cut = (torn.offset + below(random_, torn.size + 1)) / kSector * kSector;
        return prefix(file, extents, whole, cut < torn.offset ? 0 : cut - torn.offset);
      }
      case Leaves::kSectors:
        return blocks(file, extents, kSector);
      case Leaves::kPages:
        return blocks(file, extents, kPage);
      case Leaves::kZeros:
      case Leaves::kGarbage:
        break;
    }
    // What is there already is as before or as after, sector by sector; only what is new may be neither.
    if (file.bytes.size() <= file.durable.size()) return blocks(file, extents, kSector);
    return tail(file, [&] { return leaves == Leaves::kZeros ? '\0' : static_cast<char>(random_()); });
  }

  static void apply(std::string& image, const Node& file, std::uint64_t offset, std::size_t size) {
    if (image.size() < offset + size) image.resize(offset + size);
    image.replace(offset, size, file.bytes, offset, size);
  }

  /// The first `whole` writes, and so many bytes of the one behind them.
  static std::string prefix(const Node& file, const std::vector<Node::Extent>& extents, std::size_t whole,
                            std::size_t bytes_of_next) {
    std::string image = file.durable;
    for (std::size_t i = 0; i < whole; ++i) apply(image, file, extents[i].offset, extents[i].size);
    if (whole < extents.size() && bytes_of_next > 0) apply(image, file, extents[whole].offset, bytes_of_next);
    return image;
  }

  /// Each block that was written to is as before or as after, by chance; so the writes got there in any order.
  std::string blocks(const Node& file, const std::vector<Node::Extent>& extents, std::size_t block_size) {
    std::string image = file.durable;
    const std::size_t end = file.bytes.size();
    if (image.size() < end) image.resize(chance(random_, 70) ? end : image.size() + below(random_, end - image.size()));
    const auto percent = static_cast<unsigned>(10 + below(random_, 81));
    std::map<std::uint64_t, bool> is_new;  // by number; what was written to one block got there together
    for (const auto& [offset, size] : extents) {
      for (std::uint64_t at = offset; at < offset + size;) {
        const std::uint64_t block = at / block_size;
        const auto [known, added] = is_new.try_emplace(block);
        if (added) known->second = chance(random_, percent);
        const std::uint64_t next = std::min<std::uint64_t>((block + 1) * block_size, offset + size);
        const std::uint64_t stop = std::min<std::uint64_t>(next, image.size());
        if (known->second && at < stop) image.replace(at, stop - at, file.bytes, at, stop - at);
        at = next;
      }
    }
    return image;
  }

  /// The file grew, and what should stand in the new part is not there.
  template <class Byte>
  std::string tail(const Node& file, Byte byte) {
    std::string image = file.durable;
    const std::size_t grown = 1 + below(random_, file.bytes.size() - image.size());
    for (std::size_t i = 0; i < grown; ++i) image.push_back(byte());
    return image;
  }

  Random& random_;
  bool one_way_{};  ///< the same became of every file
  Leaves leaves_{};
  std::unordered_map<const Node*, std::vector<NameChange::Edit>> edits_;  ///< that were kept, by directory
  std::unordered_map<const Node*, NodePtr> found_;
};

std::shared_ptr<SimulatedDisk> SimulatedDisk::after_power_cut(Random& random) const {
  auto found = std::make_shared<SimulatedDisk>();
  const std::lock_guard lock(mutex_);
  Image image(random, pending_);
  found->root_ = image.of(root_);
  found->free_bytes_ = free_bytes_;
  return found;
}

}  // namespace tensorforge::crashtest
