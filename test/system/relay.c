/*
 * A process that connects to the daemon, and its relatives. Whoever connects, a thread, a fork
 * child, a CLONE_VM child, copies bytes between the daemon and a Unix socket of its own, so that the
 * test speaks gRPC with the identity of that task. One command a line:
 *   relay DAEMON_SOCKET          thread|fork|double|share|vfork|newpid|inherit PATH
 *                                pid PATH PID, give PATH GIVEN, take PATH GIVEN, reap PID, exec
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PLACES = 16, STACK = 256 << 10 };

struct place {
  char path[100], given[100];
  int near, far;
  char stack[STACK] __attribute__((aligned(16)));
};

static struct place places[PLACES];
static int place_count;
static const char *daemon_path;

static void say(const char *format, ...) {
  char line[300];
  va_list values;
  va_start(values, format);
  int length = vsnprintf(line, sizeof line, format, values);
  va_end(values);
  if (write(1, line, (size_t)length) != length) _exit(9);
}

static void fail(const char *what) {
  say("failed %s: %s\n", what, strerror(errno));
  _exit(1);
}

static int unix_socket(const char *path, int listens) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) fail("socket");
  if (listens) {
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4)) fail("listen");
  } else if (connect(fd, (void *)&address, sizeof address)) {
    fail("connect");
  }
  return fd;
}

static int copy(int from, int to) {
  char bytes[16384];
  ssize_t length = read(from, bytes, sizeof bytes);
  for (ssize_t at = 0; at < length;) {
    ssize_t written = write(to, bytes + at, (size_t)(length - at));
    if (written <= 0) return 0;
    at += written;
  }
  return length > 0;
}

static void *pump(void *argument) {
  struct place *at = argument;
  for (;;) {
    struct pollfd ready[2] = {{at->near, POLLIN, 0}, {at->far, POLLIN, 0}};
    if (poll(ready, 2, -1) < 0) continue;
    if (ready[0].revents && !copy(at->near, at->far)) break;
    if (ready[1].revents && !copy(at->far, at->near)) break;
  }
  shutdown(at->near, SHUT_RDWR);
  shutdown(at->far, SHUT_RDWR);
  return 0;
}

/* This task connects, unless somebody did for it, and relays. */
static int serve(void *argument) {
  struct place *at = argument;
  int listener = unix_socket(at->path, 1);
  if (at->far < 0) at->far = unix_socket(daemon_path, 0);
  say("at %d\n", (int)getpid());
  at->near = accept(listener, 0, 0);
  close(listener);
  pump(at);
  return 0;
}

static void *serve_in_thread(void *at) { return serve(at), (void *)0; }

static void *vfork_in_thread(void *argument) {
  struct place *at = argument;
  clone(serve, at->stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, at);
  return 0;
}

static void start(void *(*work)(void *), struct place *at) {
  pthread_t thread;
  if (pthread_create(&thread, 0, work, at)) fail("pthread_create");
}

/* fork(2) to a pid of choice (clone3.2, set_tid). */
static pid_t fork_as(pid_t pid) {
  struct {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size;
  } arguments = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&pid, .set_tid_size = 1};
  return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

static void pass(struct place *at, int gives) {
  char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec bytes = {&byte, 1};
  struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control,
                           .msg_controllen = sizeof control};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (gives) {
    *header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    int fd = unix_socket(daemon_path, 0);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(unix_socket(at->given, 0), &message, 0) != 1) fail("sendmsg");
    close(fd);
    say("given\n");
    return;
  }
  int listener = unix_socket(at->given, 1);
  say("taking\n");
  if (recvmsg(accept(listener, 0, 0), &message, 0) != 1) fail("recvmsg");
  memcpy(&at->far, CMSG_DATA(header), sizeof at->far);
  start(serve_in_thread, at);
}

/* The image after this one goes on with the same sockets. */
static void become_another_image(char *program) {
  static char numbers[2 * PLACES][12];
  char *arguments[2 * PLACES + 3] = {program, (char *)daemon_path};
  int count = 2;
  for (int i = 0; i < place_count; i += 1) {
    snprintf(numbers[count - 2], 12, "%d", places[i].near);
    arguments[count] = numbers[count - 2], count += 1;
    snprintf(numbers[count - 2], 12, "%d", places[i].far);
    arguments[count] = numbers[count - 2], count += 1;
  }
  execv("/proc/self/exe", arguments);
  fail("execv");
}

static void obey(const char *command, struct place *at) {
  pid_t child = 1;
  if (!strcmp(command, "thread")) start(serve_in_thread, at);
  else if (!strcmp(command, "vfork")) start(vfork_in_thread, at);
  else if (!strcmp(command, "share"))
    child = clone(serve, at->stack + STACK, CLONE_VM | SIGCHLD, at);
  else if (!strcmp(command, "newpid"))
    child = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
  else if (!strcmp(command, "fork")) child = fork();
  else if (!strcmp(command, "pid")) child = fork_as(atoi(at->given));
  else if (!strcmp(command, "inherit")) at->far = unix_socket(daemon_path, 0), child = fork();
  else if (!strcmp(command, "double")) {
    if ((child = fork()) == 0) {
      if (fork() > 0) _exit(0);
    } else waitpid(child, 0, 0);
  } else if (!strcmp(command, "give")) pass(at, 1);
  else if (!strcmp(command, "take")) pass(at, 0);
  else errno = EINVAL, fail(command);
  if (child == 0) _exit(serve(at));
  if (child < 0) say("failed %s: %s\n", command, strerror(errno));
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  daemon_path = argv[1];
  for (int i = 2; i + 1 < argc; i += 2, place_count += 1) {
    places[place_count].near = atoi(argv[i]);
    places[place_count].far = atoi(argv[i + 1]);
    start(pump, &places[place_count]);
  }
  say("ready %d\n", (int)getpid());
  setvbuf(stdin, 0, _IONBF, 0);
  char line[300], command[16];
  while (fgets(line, sizeof line, stdin)) {
    struct place *at = &places[place_count];
    at->far = -1;
    if (sscanf(line, "%15s %99s %99s", command, at->path, at->given) < 1) continue;
    if (!strcmp(command, "exec")) become_another_image(argv[0]);
    if (!strcmp(command, "reap")) {
      kill(atoi(at->path), SIGKILL);
      waitpid(atoi(at->path), 0, __WALL);
      say("reaped\n");
      continue;
    }
    place_count += 1;
    obey(command, at);
  }
  return 0;
}
