/*
 * What a hostile process does to the sockets of the daemon that Node cannot do. Each writes the line
 * "attacking" once it has begun, and goes on until it is killed.
 *   hostile linger packets SOCKET       passes sockets whose close lingers, without a ticket
 *   hostile linger stream SOCKET        the same to the socket of gRPC, and hangs up at once
 *   hostile linger kept SOCKET          the same, and stays connected
 *   hostile linger many SOCKET          the same, from more connections than an identity may make
 *   hostile fuse packets|stream SOCKET UID   passes files that this process serves, and never answers for
 *   hostile packets SOCKET COUNT        packets of one byte without pause, on so many connections
 *   hostile processes SOCKET COUNT      so many processes that connect and stay
 *   hostile locked SOCKET               connects again and again while its mmap lock is held
 *   hostile exec SOCKET                 becomes another image again and again, and keeps its connections
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINGER_SECONDS = 30, PASSED = 120, PASSED_MAX = 253, ANSWER_MS = 500 };

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void attacking(void) {
  static int said;
  if (!said++) {
    puts("attacking");
    fflush(stdout);
  }
}

static int connected(int type, const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (fd < 0) die("socket");
  if (connect(fd, (void *)&address, sizeof address)) {
    close(fd);
    return -1;
  }
  return fd;
}

static void pass(int to, const int *fds, int count) {
  char control[CMSG_SPACE(PASSED_MAX * sizeof(int))] = {0};
  char text[] = "no ticket";
  struct iovec data = {text, sizeof text - 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
  struct cmsghdr *rights = (void *)control;
  message.msg_controllen = CMSG_SPACE(count * sizeof(int));
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(count * sizeof(int));
  memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
  // A socket that takes no fds refuses them: that is as good a defence as any.
  sendmsg(to, &message, MSG_NOSIGNAL);
}

static void wait_for_answer(int fd) {
  struct pollfd one = {fd, POLLIN, 0};
  poll(&one, 1, ANSWER_MS);
}

static int listener;
static struct sockaddr_in listening_at = {.sin_family = AF_INET};

static void listen_and_never_read(void) {
  socklen_t length = sizeof listening_at;
  int size = 4096;
  listening_at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  if (bind(listener, (void *)&listening_at, sizeof listening_at)) die("bind");
  if (listen(listener, 4096)) die("listen");
  getsockname(listener, (void *)&listening_at, &length);
}

/*
 * A TCP socket with bytes that its other end never takes: its last close waits for them. Nothing accepts
 * the other end, which the listener has in its queue.
 */
static int lingering(void) {
  static char junk[65536];
  struct linger linger = {1, LINGER_SECONDS};
  int size = 4096, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  if (connect(fd, (void *)&listening_at, sizeof listening_at)) die("connect");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  while (write(fd, junk, sizeof junk) > 0) continue;
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
  return fd;
}

/*
 * A child makes lingering sockets, passes them and ends: what ends does not linger, and the daemon has the
 * last references of them.
 */
static void pass_lingering(int to, int count) {
  int child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    int fds[PASSED_MAX] = {0};
    for (int each = 0; each < count; each++) fds[each] = lingering();
    pass(to, fds, count);
    _exit(0);
  }
  waitpid(child, 0, 0);
}

static void linger(const char *how, const char *path) {
  int isPackets = !strcmp(how, "packets"), isKept = !strcmp(how, "kept");
  int isMany = !strcmp(how, "many");
  listen_and_never_read();
  for (int round = 0; round < (isMany ? 700 : 4); round++) {
    int to = connected(isPackets ? SOCK_SEQPACKET : SOCK_STREAM, path);
    if (to < 0) continue;
    pass_lingering(to, isMany ? 1 : PASSED);
    if (isPackets) wait_for_answer(to);
    if (!isKept) close(to);
    if (!isMany || round > 600) attacking();
  }
  for (;;) pause();
}

static int fuse_fd;

static void answer(unsigned long long unique, int error, const void *body, size_t length) {
  char bytes[4096];
  struct fuse_out_header head = {sizeof head + length, error, unique};
  memcpy(bytes, &head, sizeof head);
  if (length) memcpy(bytes + sizeof head, body, length);
  if (write(fuse_fd, bytes, sizeof head + length) < 0) return;
}

static struct fuse_attr attributes(unsigned long long ino) {
  struct fuse_attr file = {.ino = ino, .nlink = 1, .blksize = 4096, .size = 1 << 20, .blocks = 8};
  file.mode = ino == 1 ? S_IFDIR | 0755 : S_IFREG | 0666;
  return file;
}

/* Serves one file; reads, writes and flushes of it are never answered. */
static void serve_file(void) {
  static char request[1 << 17];
  for (;;) {
    struct fuse_in_header *head = (void *)request;
    ssize_t length = read(fuse_fd, request, sizeof request);
    if (length < 0 && errno != EINTR && errno != ENOENT) exit(0);
    if (length < 0) continue;
    switch (head->opcode) {
    case FUSE_INIT: {
      struct fuse_init_out made = {.major = 7, .minor = 31, .max_write = 4096};
      made.flags = FUSE_WRITEBACK_CACHE;
      answer(head->unique, 0, &made, sizeof made);
      break;
    }
    case FUSE_LOOKUP: {
      struct fuse_entry_out entry = {.nodeid = 2, .entry_valid = 1000, .attr_valid = 1000};
      entry.attr = attributes(2);
      answer(head->unique, 0, &entry, sizeof entry);
      break;
    }
    case FUSE_GETATTR: {
      struct fuse_attr_out got = {.attr_valid = 1000, .attr = attributes(head->nodeid)};
      answer(head->unique, 0, &got, sizeof got);
      break;
    }
    case FUSE_OPEN: {
      struct fuse_open_out opened = {0};
      answer(head->unique, 0, &opened, sizeof opened);
      break;
    }
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_FLUSH:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
      break;
    default:
      answer(head->unique, -ENOSYS, 0, 0);
    }
  }
}

/* Mounts as fusermount does for a user, in a mount namespace of this process alone. */
static void mount_fuse(const char *directory, int uid) {
  char options[100];
  if (unshare(CLONE_NEWNS)) die("unshare");
  mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
  fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fuse_fd < 0) die("/dev/fuse");
  sprintf(options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", fuse_fd, uid, uid);
  if (mount("hostile", directory, "fuse", MS_NOSUID | MS_NODEV, options)) die("mount");
  if (setgroups(0, 0) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid)) die("setuid");
}

static void fuse(const char *how, const char *path, int uid) {
  char directory[] = "/tmp/vfiod-hostile-XXXXXX", file[64];
  int isPackets = !strcmp(how, "packets");
  if (!mkdtemp(directory)) die("mkdtemp");
  chmod(directory, 0755);
  sprintf(file, "%s/file", directory);
  mount_fuse(directory, uid);
  int server = fork();
  if (server == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve_file();
  }
  // Once the server is gone there is none: what waits for it ends.
  close(fuse_fd);
  for (int round = 0; round < 4; round++) {
    int fds[PASSED], to = connected(isPackets ? SOCK_SEQPACKET : SOCK_STREAM, path);
    if (to < 0) continue;
    for (int each = 0; each < PASSED; each++) {
      fds[each] = open(file, O_RDWR | O_CLOEXEC);
      if (fds[each] < 0) die(file);
    }
    // Without a page of it in memory a write would wait for a read.
    void *page = mmap(0, 4096, PROT_READ, MAP_SHARED, fds[0], 0);
    if (page == MAP_FAILED) die("mmap");
    pass(to, fds, PASSED);
    // The fds stay open here: a close of this process would wait as well.
    if (isPackets) wait_for_answer(to);
    else close(to);
    attacking();
  }
  for (;;) pause();
}

static void packets(const char *path, int count) {
  struct pollfd each[64];
  for (int n = 0; n < count; n++) {
    each[n].fd = connected(SOCK_SEQPACKET | SOCK_NONBLOCK, path);
    each[n].events = POLLIN | POLLOUT;
  }
  for (;;) {
    for (int n = 0; n < count; n++) {
      char answer[2048];
      while (send(each[n].fd, "x", 1, MSG_NOSIGNAL) > 0) continue;
      int isClosed = errno == EPIPE || errno == EBADF || errno == ECONNRESET;
      while (recv(each[n].fd, answer, sizeof answer, 0) > 0) continue;
      if (!isClosed) continue;
      close(each[n].fd);
      each[n].fd = connected(SOCK_SEQPACKET | SOCK_NONBLOCK, path);
    }
    attacking();
    poll(each, count, 20);
  }
}

static void processes(const char *path, int count) {
  for (int n = 0; n < count; n++) {
    int ready[2];
    char byte;
    if (pipe(ready)) die("pipe");
    int child = fork();
    if (child < 0) break;
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      int fd = connected(SOCK_STREAM, path);
      if (fd >= 0 && write(fd, PREFACE, sizeof PREFACE) > 0) wait_for_answer(fd);
      close(fd);
      close(ready[1]);
      close(ready[0]);
      for (;;) pause();
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) < 0) die("read");
    close(ready[0]);
  }
  attacking();
  for (;;) pause();
}

static void *hold_lock(void *base) {
  for (;;) {
    mprotect(base, 8ul << 30, PROT_NONE);
    mprotect(base, 8ul << 30, PROT_READ);
  }
  return 0;
}

static void locked(const char *path) {
  pthread_t thread;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char *base = mmap(0, 8ul << 30, PROT_READ, flags, -1, 0);
  if (base == MAP_FAILED) die("mmap");
  // Zero pages: they cost page tables alone, which mprotect walks.
  madvise(base, 8ul << 30, MADV_NOHUGEPAGE);
  madvise(base, 8ul << 30, MADV_POPULATE_READ);
  pthread_create(&thread, 0, hold_lock, base);
  for (;;) {
    int fd = connected(SOCK_STREAM, path);
    if (fd < 0) continue;
    if (write(fd, PREFACE, sizeof PREFACE) < 0) attacking();
    wait_for_answer(fd);
    attacking();
    close(fd);
  }
}

static void exec_again(char **arguments, const char *path) {
  // More memory than a moment frees.
  size_t size = 64ul << 20;
  char *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  memset(memory, 1, size);
  int fd = connected(SOCK_STREAM, path);
  if (fd >= 0) {
    if (write(fd, PREFACE, sizeof PREFACE) < 0) close(fd);
    // A few are kept over the exec.
    if (fd < 20) fcntl(fd, F_SETFD, 0);
  }
  attacking();
  execv("/proc/self/exe", arguments);
  die("exec");
}

int main(int count, char **arguments) {
  if (count < 3) return 2;
  const char *kind = arguments[1];
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!strcmp(kind, "linger")) linger(arguments[2], arguments[3]);
  if (!strcmp(kind, "fuse")) fuse(arguments[2], arguments[3], atoi(arguments[4]));
  if (!strcmp(kind, "packets")) packets(arguments[2], atoi(arguments[3]));
  if (!strcmp(kind, "processes")) processes(arguments[2], atoi(arguments[3]));
  if (!strcmp(kind, "locked")) locked(arguments[2]);
  if (!strcmp(kind, "exec")) exec_again(arguments, arguments[2]);
  return 2;
}
