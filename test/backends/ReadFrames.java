import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.TextFormat;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.serialization.*;

/**
 * Reads a topic from its beginning as a program on the JVM would, by Kafka's
 * own client and Google's Protobuf, and prints a line for each event: partition,
 * offset, key, schema id, message indexes, message type, message.
 *
 *   java -cp … ReadFrames.java <broker> <topic> <events> <descriptor set> <schema id>=<file> …
 */
class ReadFrames {
  public static void main(String[] args) throws Exception {
    var files = link(FileDescriptorSet.parseFrom(Files.readAllBytes(Path.of(args[3]))));
    var fileOfId = new HashMap<Integer, FileDescriptor>();
    for (var pair : Arrays.copyOfRange(args, 4, args.length)) {
      var parts = pair.split("=");
      fileOfId.put(Integer.parseInt(parts[0]), files.get(parts[1]));
    }
    var settings = Map.<String, Object>of(
        "bootstrap.servers", args[0], "group.id", "read-frames", "auto.offset.reset", "earliest");
    int left = Integer.parseInt(args[2]);
    long untilMs = System.currentTimeMillis() + 60_000;
    try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
      consumer.subscribe(List.of(args[1]));
      while (left > 0 && System.currentTimeMillis() < untilMs) {
        for (var record : consumer.poll(Duration.ofMillis(200))) {
          System.out.println(record.key() + "\t" + describe(ByteBuffer.wrap(record.value()), fileOfId));
          left -= 1;
        }
      }
    }
    System.exit(left == 0 ? 0 : 1);
  }

  static String describe(ByteBuffer frame, Map<Integer, FileDescriptor> fileOfId) throws Exception {
    if (frame.get() != 0) throw new IllegalArgumentException("no magic byte");
    int id = frame.getInt();
    var indexes = new ArrayList<Integer>();
    int count = readVarint(frame);
    if (count == 0) indexes.add(0);
    for (int index = 0; index < count; index++) indexes.add(readVarint(frame));
    Descriptor type = fileOfId.get(id).getMessageTypes().get(indexes.get(0));
    for (int index : indexes.subList(1, indexes.size())) type = type.getNestedTypes().get(index);
    var bytes = new byte[frame.remaining()];
    frame.get(bytes);
    var text = TextFormat.printer().emittingSingleLine(true).printToString(DynamicMessage.parseFrom(type, bytes));
    return id + "\t" + indexes + "\t" + type.getFullName() + "\t" + text.strip();
  }

  /** Zigzag, as message indexes are written. */
  static int readVarint(ByteBuffer frame) {
    int value = 0;
    for (int shift = 0;; shift += 7) {
      byte part = frame.get();
      value |= (part & 0x7f) << shift;
      if (part >= 0) return (value >>> 1) ^ -(value & 1);
    }
  }

  /** The files by name; in the set, each comes after what it imports. */
  static Map<String, FileDescriptor> link(FileDescriptorSet set) throws Exception {
    var linked = new HashMap<String, FileDescriptor>();
    for (FileDescriptorProto file : set.getFileList()) {
      var imports = file.getDependencyList().stream().map(linked::get).toArray(FileDescriptor[]::new);
      linked.put(file.getName(), FileDescriptor.buildFrom(file, imports));
    }
    return linked;
  }
}
