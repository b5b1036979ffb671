/** Spark's guard: which statements Spark may execute here, and who may send them over JDBC.
  *
  * Set-up compiles this file with the Scala compiler that PySpark brings (`spark_guard.py`).
  */
package org.apache.spark.sql.headwater { // for states of sessions, which are private to Spark's SQL

  import java.nio.charset.StandardCharsets.UTF_8
  import java.security.MessageDigest
  import java.util.{Collections, WeakHashMap}
  import javax.security.sasl.AuthenticationException

  import scala.util.control.NoStackTrace

  import org.apache.hive.service.auth.PasswdAuthenticationProvider
  import org.apache.spark.sql.{AnalysisException, SparkSession, SparkSessionExtensions}
  import org.apache.spark.sql.catalyst.{FunctionIdentifier, TableIdentifier}
  import org.apache.spark.sql.catalyst.analysis._
  import org.apache.spark.sql.catalyst.expressions.{Expression, PlanExpression}
  import org.apache.spark.sql.catalyst.parser.{ParameterContext, ParserInterface}
  import org.apache.spark.sql.catalyst.plans.logical._
  import org.apache.spark.sql.classic.{SparkSession => ClassicSession}
  import org.apache.spark.sql.execution.CommandExecutionMode
  import org.apache.spark.sql.execution.command._
  import org.apache.spark.sql.execution.datasources.LogicalRelation
  import org.apache.spark.sql.internal.SessionState
  import org.apache.spark.sql.types.{DataType, StructType}

  /** A statement that does more than read the lake's tables; SQLSTATE 25006 is "read-only". */
  class StatementRefused(what: String)
      extends AnalysisException(
        s"$what was refused: the lake is read-only here; its tables are written by the asset graph " +
          "(`headwater run`)",
        None, None, None, None, Map.empty[String, String], Array.empty, None, Some("25006"))
      with NoStackTrace {
    override def getSqlState: String = "25006"
    override def toString: String = getMessage
  }

  /** Checks statements against lists of what is allowed.
    *
    * Spark executes commands while it makes a data frame of them, reads files that a query names as tables,
    * and has functions that call any Java method. So its own parser says what a statement is, and its own
    * analysis, which executes no command, says what it means. Both plans are checked.
    */
  object StatementCheck {

    private val Layers = Set("bronze", "silver", "gold", "ops")
    private val Namespaces = Layers + "default"
    private val SparkCatalog = "spark_catalog"

    /** Settings that a client may make: they change how values are written and computed, nothing else. */
    val Settings: Set[String] = Set("spark.sql.session.timeZone", "spark.sql.ansi.enabled")

    /** Nodes that make rows of rows. */
    private val QueryNodes = names("""
      Aggregate AsOfJoin CTERelationDef CTERelationRef Deduplicate Distinct Except Expand Filter Generate
      GlobalLimit Intersect Join LateralJoin LocalLimit LocalRelation Offset OneRowRelation PipeOperator
      Pivot Project Range Repartition RepartitionByExpression ResolvedHint ResolvedInlineTable Sample Sort
      SubqueryAlias Tail Union UnionLoop UnionLoopRef Unpivot UnresolvedHaving UnresolvedHint
      UnresolvedInlineTable UnresolvedSubqueryColumnAliases UnresolvedTVFAliases
      UnresolvedTableValuedFunction UnresolvedWith Window WithCTE WithWindowDefinition""")

    /** Commands that change nothing outside the session, and what they name. */
    private val ShowingNodes = names("""
      CurrentNamespace DescribeColumn DescribeColumnCommand DescribeDatabaseCommand DescribeNamespace
      DescribeQueryCommand DescribeRelation DescribeTableCommand ExplainCommand ResolvedNamespace
      ResolvedTable ResolvedTempView SetCatalogAndNamespace SetNamespaceCommand ShowColumns
      ShowColumnsCommand ShowCatalogsCommand ShowCurrentNamespaceCommand ShowDeltaTableColumnsCommand
      ShowNamespaces ShowNamespacesCommand ShowTableProperties ShowTablePropertiesCommand ShowTables
      ShowTablesCommand ShowTablesExtended ShowViews ShowViewsCommand""")

    private val ExpressionPackage = "org.apache.spark.sql.catalyst.expressions."
    private val RefusedExpressions =
      names("CallMethodViaReflection PythonUDAF PythonUDF PythonUDTF ScalaUDF")

    /** Expressions of the package `analysis`; one there finds a function by a name that is worked out. */
    private val UnresolvedExpressions = names("""
      MultiAlias ResolvedStar UnresolvedAlias UnresolvedAttribute UnresolvedExtractValue UnresolvedFunction
      UnresolvedGenerator UnresolvedOrdinal UnresolvedRegex UnresolvedStar UnresolvedStarExceptOrReplace""")

    private val FunctionGroups = names("""
      agg_funcs array_funcs bitwise_funcs collection_funcs conditional_funcs conversion_funcs csv_funcs
      datetime_funcs generator_funcs hash_funcs json_funcs lambda_funcs map_funcs math_funcs predicate_funcs
      string_funcs struct_funcs url_funcs variant_funcs window_funcs""")

    /** These alone of the other groups, in which `reflect`, `java_method` and `table_changes` are. */
    private val OtherFunctions = names("""
      assert_true current_catalog current_database current_schema current_user range raise_error session_user
      typeof user uuid version""")

    private val trusted = Collections.synchronizedMap(new WeakHashMap[SparkSession, String])

    /** Lets a session of our own execute anything; sessions of clients are others. */
    def trust(session: SparkSession): Unit = trusted.put(session, "")

    /** Returns the plan of a statement, checked and not executed. */
    def checkedPlan(session: SparkSession, statement: String): LogicalPlan = {
      val plan = state(session).sqlParser.parsePlan(statement)
      check(session, plan)
      plan
    }

    /** Refuses a parsed statement that does anything but read, unless the session is trusted. */
    private[headwater] def guard(session: SparkSession, plan: LogicalPlan): LogicalPlan = {
      if (!trusted.containsKey(session)) check(session, plan)
      plan
    }

    private def check(session: SparkSession, parsed: LogicalPlan): Unit = {
      checkPlan(parsed, state(session))
      checkPlan(state(session).executePlan(parsed, CommandExecutionMode.SKIP).analyzed, state(session))
    }

    private def state(session: SparkSession): SessionState = session.asInstanceOf[ClassicSession].sessionState

    private def checkPlan(root: LogicalPlan, state: SessionState): Unit = {
      var waiting = List[LogicalPlan](root)
      while (waiting.nonEmpty) {
        val node = waiting.head
        waiting = waiting.tail
        val inside: Seq[LogicalPlan] = node match {
          case view: View if view.isTempView => Nil // one of the lake's tables: a statement can define none
          case relation: UnresolvedRelation =>
            if (relation.isStreaming || !relation.options.isEmpty) refuse("a table with options")
            checkTable(relation.multipartIdentifier)
            Nil
          case table: UnresolvedTableOrView => checkTable(table.multipartIdentifier); Nil
          case table: UnresolvedTable => checkTable(table.multipartIdentifier); Nil
          case namespace: UnresolvedNamespace => checkNamespace(namespace.multipartIdentifier); Nil
          case relation: LogicalRelation =>
            if (relation.catalogTable.isEmpty) refuse("a file as a table")
            Nil
          case set: SetCommand => checkSetting(set); Nil
          case explain: ExplainCommand => checkChildren(explain, state) :+ explain.logicalPlan
          case describe: DescribeQueryCommand => checkChildren(describe, state) :+ describe.plan
          case travel: RelationTimeTravel => travel.relation +: subqueries(travel, state)
          case use: SetNamespaceCommand => checkNamespace(use.namespace); Nil
          case function: UnresolvedTableValuedFunction =>
            checkFunction(function.name, state.tableFunctionRegistry)
            checkChildren(function, state)
          case _ => checkChildren(node, state)
        }
        waiting = inside.toList ++ waiting
      }
    }

    /** Checks a node itself; returns the plans within it. */
    private def checkChildren(node: LogicalPlan, state: SessionState): Seq[LogicalPlan] = {
      val kind = kindOf(node)
      if (!QueryNodes(kind) && !ShowingNodes(kind)) refuse(kind)
      val named = node match {
        case having: UnresolvedWith => having.innerChildren.collect { case plan: LogicalPlan => plan }
        case _ => Nil
      }
      node.children ++ named ++ subqueries(node, state)
    }

    /** Checks the expressions of a node; returns the plans of their subqueries. */
    private def subqueries(node: LogicalPlan, state: SessionState): Seq[LogicalPlan] = {
      val plans = Seq.newBuilder[LogicalPlan]
      var waiting = node.expressions.toList
      while (waiting.nonEmpty) {
        val each = waiting.head
        checkExpression(each, state)
        each match {
          case subquery: PlanExpression[_] => plans += subquery.plan.asInstanceOf[LogicalPlan]
          case _ =>
        }
        waiting = each.children.toList ++ waiting.tail
      }
      plans.result()
    }

    private def checkExpression(each: Expression, state: SessionState): Unit = {
      val kind = kindOf(each)
      val known = UnresolvedExpressions(kind) || each.getClass.getName.startsWith(ExpressionPackage)
      if (!known || RefusedExpressions(kind)) refuse(kind)
      each match {
        case function: UnresolvedFunction => checkFunction(function.nameParts, state.functionRegistry)
        case generator: UnresolvedGenerator =>
          checkFunction(Seq(generator.name.unquotedString), state.functionRegistry)
        case _ =>
      }
    }

    private def checkFunction(parts: Seq[String], registry: FunctionRegistryBase[_]): Unit = {
      val name = parts.mkString(".")
      registry.lookupFunction(FunctionIdentifier(name)) match {
        case None => refuse(s"$name, which is no function of Spark,")
        case Some(found) =>
          if (!FunctionGroups(found.getGroup) && !OtherFunctions(name.toLowerCase)) {
            refuse(s"the function $name")
          }
      }
    }

    /** A table has one name (a view of ours, or a name from WITH), or a layer's name before it. */
    private def checkTable(parts: Seq[String]): Unit = {
      val named = if (parts.length == 3 && parts.head.equalsIgnoreCase(SparkCatalog)) parts.tail else parts
      if (named.length > 2 || (named.length == 2 && !Namespaces(named.head.toLowerCase))) {
        refuse(s"${parts.mkString(".")}, which is no table of the lake,")
      }
    }

    private def checkNamespace(parts: Seq[String]): Unit = {
      val named = if (parts.headOption.exists(_.equalsIgnoreCase(SparkCatalog))) parts.tail else parts
      if (named.length > 1 || !named.forall(part => Namespaces(part.toLowerCase))) {
        refuse(s"${parts.mkString(".")}, which is no schema of the lake,")
      }
    }

    private def checkSetting(set: SetCommand): Unit = set.kv match {
      case Some((name, Some(_))) if Settings(name) =>
      case Some((name, _)) => refuse(s"SET $name")
      case None => refuse("SET")
    }

    private def refuse(what: String): Nothing = throw new StatementRefused(what)

    private def kindOf(node: AnyRef): String =
      node.getClass.getName.stripSuffix("$").split('.').last.split('$').last

    private def names(text: String): Set[String] = text.trim.split("\\s+").toSet
  }

  /** Spark's parser, which refuses what `StatementCheck` does not allow in sessions of clients. */
  class GuardedParser(session: SparkSession, parser: ParserInterface) extends ParserInterface {
    override def parsePlan(sql: String): LogicalPlan = StatementCheck.guard(session, parser.parsePlan(sql))
    override def parsePlanWithParameters(sql: String, parameters: ParameterContext): LogicalPlan =
      StatementCheck.guard(session, parser.parsePlanWithParameters(sql, parameters))
    override def parseQuery(sql: String): LogicalPlan = StatementCheck.guard(session, parser.parseQuery(sql))
    override def parseExpression(sql: String): Expression = parser.parseExpression(sql)
    override def parseTableIdentifier(sql: String): TableIdentifier = parser.parseTableIdentifier(sql)
    override def parseFunctionIdentifier(sql: String): FunctionIdentifier =
      parser.parseFunctionIdentifier(sql)
    override def parseMultipartIdentifier(sql: String): Seq[String] = parser.parseMultipartIdentifier(sql)
    override def parseRoutineParam(sql: String): StructType = parser.parseRoutineParam(sql)
    override def parseTableSchema(sql: String): StructType = parser.parseTableSchema(sql)
    override def parseDataType(sql: String): DataType = parser.parseDataType(sql)
  }

  /** What `spark.sql.extensions` names: it puts the guard before Spark's parser in every session. */
  class SparkGuard extends (SparkSessionExtensions => Unit) {
    override def apply(extensions: SparkSessionExtensions): Unit =
      extensions.injectParser((session, parser) => new GuardedParser(session, parser))
  }

  /** Lets in the one user with the password of the state folder; before it is told of it, nobody. */
  class JdbcPassword extends PasswdAuthenticationProvider {
    override def Authenticate(user: String, password: String): Unit = {
      val given = JdbcPassword.digestOf(s"$user:$password")
      val known = JdbcPassword.digest
      if (user == null || password == null || known.isEmpty || !MessageDigest.isEqual(given, known)) {
        throw new AuthenticationException("wrong user or password")
      }
    }
  }

  object JdbcPassword {
    /** SHA-256 of `user:password`: the password is random and long, so no slower function is needed. */
    @volatile var digest: Array[Byte] = Array.empty

    def digestOf(text: String): Array[Byte] =
      MessageDigest.getInstance("SHA-256").digest(text.getBytes(UTF_8))
  }
}

package org.apache.spark.sql.hive.thriftserver { // whose server is private to it

  import java.util.{HashMap, List => JavaList}

  import scala.jdk.CollectionConverters._

  import org.apache.hive.service.Service
  import org.apache.hive.service.auth.PasswdAuthenticationProvider
  import org.apache.hive.service.cli.CLIService
  import org.apache.hive.service.cli.thrift.ThriftBinaryCLIService
  import org.apache.hive.service.rpc.thrift._
  import org.apache.spark.SparkContext
  import org.apache.spark.sql.SparkSession
  import org.apache.spark.sql.classic.{SparkSession => ClassicSession}
  import org.apache.spark.sql.headwater.{JdbcPassword, StatementCheck}
  import org.apache.spark.sql.hive.HiveUtils

  /** The Thrift service without what a client may not set, and without Java traces in its errors. */
  class GuardedThriftService(service: CLIService) extends ThriftBinaryCLIService(service) {

    private val Prefix = "set:hiveconf:"
    private val FetchSize = Prefix + "hive.server2.thrift.resultset.default.fetch.size"

    override def OpenSession(request: TOpenSessionReq): TOpenSessionResp = {
      // Some clients send the bare name of a setting, which Hive would keep to itself.
      val asked = Option(request.getConfiguration).map(_.asScala.toMap).getOrElse(Map.empty).map {
        case (name, value) => (if (StatementCheck.Settings(name)) Prefix + name else name, value)
      }
      asked.find { case (name, value) => !allowed(name, value) } match {
        case Some((name, _)) =>
          val refused = new TStatus(TStatusCode.ERROR_STATUS)
          refused.setErrorMessage(
            s"the setting $name was refused: the lake is read-only here, and what a client may set is " +
              StatementCheck.Settings.toSeq.sorted.mkString(", "))
          refused.setSqlState("25006")
          new TOpenSessionResp(refused, TProtocolVersion.HIVE_CLI_SERVICE_PROTOCOL_V10)
        case None =>
          request.setConfiguration(new HashMap(asked.asJava))
          val answer = super.OpenSession(request)
          withoutTrace(answer.getStatus)
          answer
      }
    }

    override def ExecuteStatement(request: TExecuteStatementReq): TExecuteStatementResp = {
      request.setConfOverlay(new HashMap[String, String])
      val answer = super.ExecuteStatement(request)
      withoutTrace(answer.getStatus)
      answer
    }

    override def FetchResults(request: TFetchResultsReq): TFetchResultsResp = {
      val answer = super.FetchResults(request)
      withoutTrace(answer.getStatus)
      answer
    }

    override def GetOperationStatus(request: TGetOperationStatusReq): TGetOperationStatusResp = {
      val answer = super.GetOperationStatus(request)
      if (answer.getErrorMessage != null) answer.setErrorMessage(message(answer.getErrorMessage))
      withoutTrace(answer.getStatus)
      answer
    }

    private def allowed(name: String, value: String): Boolean = name match {
      case "use:database" => value.matches("\\w+") // and then checked as a USE
      case FetchSize => value.matches("\\d{1,9}")
      case _ =>
        name.startsWith(Prefix) && StatementCheck.Settings(name.stripPrefix(Prefix)) &&
        value.matches("[\\w/+:-]{1,64}")
    }

    private def withoutTrace(status: TStatus): Unit = if (status != null && status.getErrorMessage != null) {
      status.setErrorMessage(message(status.getErrorMessage))
      status.unsetInfoMessages()
    }

    /** The message of a printed exception: without the lines of its stack and the names of its classes. */
    private def message(printed: String): String =
      printed.split("\n\tat ", 2).head
        .replaceFirst("^(?:[\\w.]+\\.)?HiveSQLException: ", "")
        .replaceFirst("^Error running query: ", "")
        .replaceFirst("^(?:\\[[\\w.]+\\] )?(?:[a-z]\\w*\\.)+[\\w$]+: ", "")
        .trim
  }

  object GuardedThriftServer {

    /** Starts the server; it listens when this returns.
      *
      * @param session the session whose catalog the sessions of clients share
      * @param digest SHA-256 (hex) of `user:password`
      */
    def start(session: SparkSession, digest: String): HiveThriftServer2 = {
      JdbcPassword.digest = digest.sliding(2, 2).map(Integer.parseInt(_, 16).toByte).toArray
      // Hive looks it up in a configuration of its own, which only system properties reach.
      System.setProperty("hive.server2.custom.authentication.class", classOf[JdbcPassword].getName)
      val context = session.sparkContext
      val hive = HiveUtils.newClientForExecution(
        context.conf, session.asInstanceOf[ClassicSession].sessionState.newHadoopConf())
      val server = new HiveThriftServer2(session)
      server.init(hive.conf)
      val services = ReflectionUtils.getAncestorField[JavaList[Service]](server, 2, "serviceList")
      val plain = services.asScala.indexWhere(_.isInstanceOf[ThriftBinaryCLIService])
      val guarded = new GuardedThriftService(ReflectionUtils.getSuperField[CLIService](server, "cliService"))
      guarded.init(hive.conf)
      services.set(plain, guarded)
      ReflectionUtils.setSuperField(server, "thriftCLIService", guarded)
      server.start()
      ReflectionUtils.invoke(HiveThriftServer2.getClass, HiveThriftServer2, "createListenerAndUI",
        classOf[HiveThriftServer2] -> server, classOf[SparkContext] -> context)
      server
    }
  }
}
