#pragma once

#include <string>
#include <vector>

#include "codec/record.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "codec/snapshot.h"

namespace tensorforge::samples {

template <class T>
struct Named {
  std::string name;
  T value;
};

// One of each kind, every field of it set to something that is not its default. tests/golden/ holds their bytes, which
// are for ever: change none, add new ones at the end.
std::vector<Named<Record>> records();  ///< one or more for each event, by its name
std::vector<Named<Note>> notes();
std::vector<Named<ClientMessage>> client_messages();  ///< Hello, every command, every query
std::vector<Named<ServerMessage>> server_messages();  ///< Welcome, a refusal, every result
std::vector<Named<SnapshotPart>> snapshot_parts();

/// Leaves out what a record of a command that stands by itself, in a session that has begun, does not have.
void make_single(Record& record);

}  // namespace tensorforge::samples
