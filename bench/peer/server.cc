// The peer of the bench: the RPCs that are measured, served by gRPC's own C++ library on nothing.
// There is no device, no address space and no check behind it, so what it costs is the transport.
//
//   peer <socket> <bytes of a session>
#include <grpcpp/grpcpp.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "vfiod/v1/address_space.grpc.pb.h"
#include "vfiod/v1/migration.grpc.pb.h"

using grpc::ServerContext;
using grpc::Status;

namespace {

constexpr uint64_t kChunk = 1 << 20;
// A Map of this much stands for one that sleeps in the kernel: see kernel.mjs, which does the same.
constexpr uint64_t kSleeps = 1 << 28;
constexpr uint64_t kRead = 1 << 30;

Status FillPages(uint64_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  const int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  if (at == MAP_FAILED || zero < 0) return Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "mmap");
  uint64_t filled = 0;
  while (filled < bytes) {
    const ssize_t got = read(zero, static_cast<char*>(at) + filled, std::min(kRead, bytes - filled));
    if (got <= 0) break;
    filled += got;
  }
  close(zero);
  munmap(at, bytes);
  return filled == bytes ? Status::OK : Status(grpc::StatusCode::INTERNAL, "read");
}

class Migration final : public vfiod::v1::MigrationService::Service {
 public:
  explicit Migration(uint64_t session_bytes) : session_bytes_(session_bytes) {}

  Status GetMigrationState(ServerContext*, const vfiod::v1::GetMigrationStateRequest*,
                           vfiod::v1::GetMigrationStateResponse* response) override {
    response->set_state(vfiod::v1::MIGRATION_STATE_RUNNING);
    return Status::OK;
  }

  Status ReadSession(ServerContext*, const vfiod::v1::ReadSessionRequest*,
                     grpc::ServerWriter<vfiod::v1::ReadSessionResponse>* writer) override {
    vfiod::v1::ReadSessionResponse message;
    message.mutable_data()->assign(kChunk, '\x5a');
    uint64_t sent = 0;
    while (sent < session_bytes_) {
      const uint64_t length = std::min(kChunk, session_bytes_ - sent);
      if (length < kChunk) message.mutable_data()->resize(length);
      message.set_offset(sent);
      if (!writer->Write(message)) return Status::CANCELLED;
      sent += length;
    }
    vfiod::v1::ReadSessionResponse last;
    last.mutable_end()->set_total_bytes(sent);
    last.mutable_end()->set_complete(true);
    writer->Write(last);
    return Status::OK;
  }

  Status WriteSession(ServerContext*, grpc::ServerReader<vfiod::v1::WriteSessionRequest>* reader,
                      vfiod::v1::WriteSessionResponse* response) override {
    vfiod::v1::WriteSessionRequest message;
    uint64_t total = 0;
    while (reader->Read(&message)) total += message.data().size();
    response->set_total_bytes(total);
    return Status::OK;
  }

 private:
  const uint64_t session_bytes_;
};

class AddressSpace final : public vfiod::v1::AddressSpaceService::Service {
 public:
  Status Map(ServerContext*, const vfiod::v1::MapRequest* request,
             vfiod::v1::MapResponse* response) override {
    uint64_t total = 0;
    for (const auto& item : request->items()) {
      response->add_results();
      total += item.length();
    }
    response->set_mapped_bytes(total);
    return total >= kSleeps ? FillPages(total) : Status::OK;
  }

  Status Unmap(ServerContext*, const vfiod::v1::UnmapRequest* request,
               vfiod::v1::UnmapResponse* response) override {
    uint64_t total = 0;
    for (const auto& item : request->items()) {
      response->add_results();
      total += item.length();
    }
    response->set_unmapped_bytes(total);
    return Status::OK;
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: peer <socket> <bytes of a session>\n");
    return 2;
  }
  Migration migration(std::strtoull(argv[2], nullptr, 10));
  AddressSpace address_space;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(std::string("unix:") + argv[1], grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(4 << 20);
  builder.RegisterService(&migration);
  builder.RegisterService(&address_space);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::puts("ready");
  std::fflush(stdout);
  server->Wait();
}
